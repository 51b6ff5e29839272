"""`deepfake-detectors convert`, `merge` and `export`: turn weights, deltas or a detector into a folder."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from deepfake_detectors_cli.console import fail, hide_loading_bars, say, work
from deepfake_detectors_cli.options import Family, Model, check_new_folder
from deepfake_detectors_cli.tables import list_families

__all__ = ["convert", "export", "merge"]

Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the checkpoint in --output; other files in it are kept.")
]


def _with_weights(command: Any) -> Any:
    """Add the locations of the official weights to the help text, from a data file that is quick to read."""
    lines = [
        f"  {family['name']}: {item['id']}, {item['where']} ({item['terms']})"
        for family in list_families()
        for item in family["official"]
        if "where" in item
    ]
    command.__doc__ = "\n\n".join([inspect.cleandoc(command.__doc__), "\b\nOfficial weights:\n" + "\n".join(lines)])
    return command


@_with_weights
def convert(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="Detector family, such as m2f2_det.")],
    source: Annotated[
        list[str],
        typer.Option(
            metavar="PATH",
            help="An official file or folder (for clip_probe also a Hub id); repeatable.",
        ),
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write.")],
    config: Annotated[
        str | None,
        typer.Option(
            metavar="JSON", help="Config fields that differ from the released model: a JSON file or inline JSON."
        ),
    ] = None,
    variant: Annotated[str | None, typer.Option(metavar="NAME", help="Require this variant of the family.")] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="Folder layout, if the family has several (fakevlm: llava)."),
    ] = None,
    lora: Annotated[
        str | None,
        typer.Option(
            metavar="HOW", help="For families with LoRA: merge it into the weights, or keep it as an adapter."
        ),
    ] = None,
    lora_already_merged: Annotated[
        bool | None,
        typer.Option(
            "--lora-already-merged/--lora-not-merged",
            help="lvlm_dfd: whether its ImageBind weights already contain their LoRA.",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert the official weights of a detector to a folder that `from_pretrained` and `--model` load.

    \b
    Examples:
      deepfake-detectors convert m2f2_det --source current_model_180.pth --output m2f2-stage1
      deepfake-detectors convert m2f2_det --source M2F2_Det_densenet121.pth --source vision_tower.pth --output m2f2
      deepfake-detectors convert clip_probe --source openai/clip-vit-large-patch14 --source fc_weights.pth --output ufd
      deepfake-detectors convert fakevlm --source fakeVLM --output fakevlm-llava --format llava
      deepfake-detectors convert lvlm_dfd --source ckpt.pth --source vicuna-7b-v1.5-16k --output lvlm-dfd
      deepfake-detectors convert lvlm_dfd --source ckpt.pth --variant detector --output lvlm-dfd-mask

    The folder is written completely or not at all. Every key of the official files must be mapped; otherwise the error
    lists the keys left over.
    """
    given = {
        "config": None if config is None else _read_json(config),
        "variant": variant,
        "format": format_,
        "lora": lora,
        "lora_already_merged": lora_already_merged,
    }
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    check_new_folder(output, overwrite)

    from deepfake_detectors import conversion

    hide_loading_bars()
    conversion.check_request(family, options, source)
    if overwrite:
        options["overwrite"] = True
    with work():
        conversion.convert(family, source, output, **options)
    say(f"Wrote {output}. Try it: deepfake-detectors detect face.jpg --model {output}")


def _read_json(config: str) -> dict[str, Any]:
    from deepfake_detectors.dataset_scripts._files import parse_json, read_text

    try:
        text = config if config.lstrip().startswith("{") else read_text(Path(config))
        fields = parse_json(text, "the value")
    except OSError as error:
        fail(f"--config {config}: cannot be read ({error.strerror or error}).")
    except ValueError as error:
        fail(f"--config: not valid JSON ({error}).")
    if not isinstance(fields, dict):
        fail(f"--config: expected a JSON object, got {type(fields).__name__}.")
    return fields


def merge(
    model: Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help="Folder or Hub id of the base.")],
    delta: Annotated[list[Path], typer.Option(metavar="PATH", help="A trained delta, file or folder; repeatable.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Merge trained deltas into their base, in the order given, and write a complete folder.

    \b
    Examples:
      deepfake-detectors merge --model m2f2-stage2 --delta lora/ --output m2f2-stage3
      deepfake-detectors merge --model m2f2-llm --delta lora/ --delta non_lora_trainables.bin --output merged

    LoRA pairs are added; every other tensor replaces the one in the base. What a delta is depends on its content, not
    on its file name. A tensor that the base does not have is an error.
    """
    check_new_folder(output, overwrite)

    from deepfake_detectors.conversion.merge import merge as merge_deltas

    hide_loading_bars()
    with work():
        merge_deltas(model, delta, output, overwrite=overwrite)
    say(f"Wrote {output}. Try it: deepfake-detectors info --model {output}")


def export(
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write.")],
    model: Model = None,
    family: Family = None,
    format_: Annotated[str, typer.Option("--format", metavar="NAME", help="Only onnx is supported.")] = "onnx",
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="Quantize large matrix multiplications to int8: smaller and faster, but not exact."
        ),
    ] = False,
    head: Annotated[
        str | None, typer.Option(metavar="NAME", help="Head to export, if the detector has several.")
    ] = None,
) -> None:
    """Export the verdict of a detector to ONNX, with a dynamic batch size.

    \b
    Examples:
      deepfake-detectors export --model m2f2-det-mini --output m2f2-onnx --format onnx
      deepfake-detectors export --model clip-probe-mini --output probe-int8 --int8
      deepfake-detectors detect face.jpg --model m2f2-onnx --backend onnxruntime

    Explanations cannot be exported, and neither can detectors whose verdict comes from a language model.
    """
    check_new_folder(output)

    from deepfake_detectors.runtime.export import export as run

    hide_loading_bars()
    written = run(model, output, format_, int8, head, family)
    say(f"Wrote {written}. Use it with: deepfake-detectors detect IMAGE --model {written} --backend onnxruntime")
