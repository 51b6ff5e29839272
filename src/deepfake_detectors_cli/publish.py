"""`deepfake-detectors publish`: push a checkpoint folder to the Hub, or create a Space that runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from deepfake_detectors_cli.console import fail, hide_loading_bars, say, work

__all__ = ["publish"]


def publish(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="Checkpoint or adapter folder to publish; with --space: Hub id, or name of a built-in detector.",
        ),
    ],
    repo: Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="Repository on the Hub.")] = None,
    space: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME",
            help="Publish a Space with the app that loads --model, instead of a model repository.",
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="results.json written by evaluate. [default: the one in the model folder]"),
    ] = None,
    without_results: Annotated[
        bool, typer.Option("--without-results", help="Publish without measured results; the card says so.")
    ] = False,
    facts: Annotated[
        str | None,
        typer.Option(
            metavar="FACTS",
            help="YAML file with facts that are not measured by a command, or the name of a bundled one, such as "
            "published_fakevlm.",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="ID[@REV]", help="Hub id of an adapter's base, if the adapter config has a local folder."
        ),
    ] = None,
    private: Annotated[
        bool,
        typer.Option("--private", help="Create a private repository, or require that the existing one is private."),
    ] = False,
    update: Annotated[bool, typer.Option("--update", help="Add a commit to an existing repository.")] = False,
    message: Annotated[str | None, typer.Option(metavar="TEXT", help="Message of the commit.")] = None,
    dry_run: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write what would be pushed to this folder, and send nothing.")
    ] = None,
) -> None:
    """Publish a detector: weights, config, processor, code and a card, in a single commit.

    \b
    Examples:
      deepfake-detectors publish --model runs/mine --results report/results.json --repo me/mine --dry-run look-first
      deepfake-detectors publish --model runs/mine --results report/results.json --repo me/mine --private
      deepfake-detectors publish --model fakevlm --facts published_fakevlm --without-results --repo me/fakevlm
      deepfake-detectors publish --model lora/ --base me/fakevlm --without-results --repo me/fakevlm-lora
      deepfake-detectors publish --model me/mine --space me/try-mine --dry-run look-first

    The card is rendered from results.json, the training files and FACTS, so that no number is typed by hand. With this
    package installed, the repository loads without remote code; otherwise it needs trust_remote_code=True. Pickles are
    never pushed. You need a token with write access: run `hf auth login`, or set HF_TOKEN.
    """
    if (repo is None) == (space is None):
        fail("Give --repo to publish a detector, or --space to publish a Space that runs one.")
    of_a_model = {"--results": results, "--without-results": without_results, "--facts": facts, "--base": base}
    if space is not None and (given := [name for name, value in of_a_model.items() if value]):
        fail(f"--space cannot be combined with {', '.join(given)}, which apply to a detector published with --repo.")

    from deepfake_detectors import publish_model, publish_space

    hide_loading_bars()
    common: dict[str, Any] = {"private": private, "update": update, "message": message, "dry_run": dry_run}
    with work():
        if space is not None:
            place = publish_space(model, space, **common)
        else:
            assert repo is not None
            place = publish_model(
                model, repo, results=results, without_results=without_results, facts=facts, base=base, **common
            )
    if dry_run is not None:
        say(f"Wrote {place}; nothing was sent. See {Path(place) / 'README.md'}.")
    else:
        say(f"Published {place}")
