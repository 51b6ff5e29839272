"""`deepfake-detectors publish`: a checkpoint folder in, a repository on the Hub out; or a Space that runs one."""

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
        typer.Option(metavar="OWNER/NAME", help="Instead of a repository: a Space with the app, which loads --model."),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="results.json of evaluate. [default: the one in the model folder]"),
    ] = None,
    without_results: Annotated[
        bool, typer.Option("--without-results", help="Publish without measured results; the card says so.")
    ] = False,
    facts: Annotated[
        str | None,
        typer.Option(
            metavar="FACTS",
            help="YAML file with facts that no command measures, or the name of a bundled one: published_fakevlm.",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="ID[@REV]", help="Hub id of an adapter's base, where the adapter names a local folder."),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make a private repository, or require that it is.")
    ] = False,
    update: Annotated[bool, typer.Option("--update", help="Add a commit to a repository that exists.")] = False,
    message: Annotated[str | None, typer.Option(metavar="TEXT", help="Summary of the commit.")] = None,
    dry_run: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write what would be pushed into this folder; send nothing.")
    ] = None,
) -> None:
    """Publish a detector: weights, config, processor, code and a card, in one commit or not at all.

    \b
    Examples:
      deepfake-detectors publish --model runs/mine --results report/results.json --repo me/mine --dry-run look-first
      deepfake-detectors publish --model runs/mine --results report/results.json --repo me/mine --private
      deepfake-detectors publish --model fakevlm --facts published_fakevlm --without-results --repo me/fakevlm
      deepfake-detectors publish --model lora/ --base me/fakevlm --without-results --repo me/fakevlm-lora
      deepfake-detectors publish --model me/mine --space me/try-mine --dry-run look-first

    The card is rendered from results.json, the files of the training and FACTS; no number is typed by hand. Users with
    this package load the repository without trusting its code, others with trust_remote_code=True. Pickles are never
    pushed. You need a token with write access: `hf auth login`, or HF_TOKEN.
    """
    if (repo is None) == (space is None):
        fail("Give --repo for a detector, or --space for a Space that runs one.")
    of_a_model = {"--results": results, "--without-results": without_results, "--facts": facts, "--base": base}
    if space is not None and (given := [name for name, value in of_a_model.items() if value]):
        fail(f"--space takes no {', '.join(given)}: these describe a detector, which is published with --repo.")

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
        say(f"Wrote {place}; nothing was sent. Look at {Path(place) / 'README.md'}.")
    else:
        say(f"Published {place}")
