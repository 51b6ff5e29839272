"""`deepfake-detectors publish`: a checkpoint folder in, a repository on the Hub out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepfake_detectors_cli.console import hide_loading_bars, say, work

__all__ = ["publish"]


def publish(
    model: Annotated[Path, typer.Option("--model", "-m", metavar="FOLDER", help="Checkpoint or adapter to publish.")],
    repo: Annotated[str, typer.Option(metavar="OWNER/NAME", help="Repository on the Hub.")],
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

    The card is rendered from results.json, the files of the training and FACTS; no number is typed by hand. Users with
    this package load the repository without trusting its code, others with trust_remote_code=True. Pickles are never
    pushed. You need a token with write access: `hf auth login`, or HF_TOKEN.
    """
    from deepfake_detectors import publish_model

    hide_loading_bars()
    with work():
        place = publish_model(
            model,
            repo,
            results=results,
            without_results=without_results,
            facts=facts,
            base=base,
            private=private,
            update=update,
            message=message,
            dry_run=dry_run,
        )
    if dry_run is not None:
        say(f"Wrote {place}; nothing was sent. Look at {Path(place) / 'README.md'}.")
    else:
        say(f"Published {place}")
