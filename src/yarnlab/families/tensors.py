"""Whether a checkpoint's files hold the weights of its config: all of them, no others, and each once.

Stock transformers draws a missing weight at random and passes over one that the model does not know; both are logged,
and the numbers that follow are wrong without a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarnlab.errors import UserError
from yarnlab.weights import INDEX, weight_map

if TYPE_CHECKING:
    from torch import Tensor

# Tables that older checkpoints store; they follow from the config.
TABLES = ("rotary_emb.inv_freq",)
WHOLE = "model.safetensors"  # of a checkpoint in one file
SHOWN = 5  # names in a message


class WrongWeights(UserError):
    """Files of weights that are not those of their config; the message names the weights."""


def check_files(folder: Path) -> None:
    """WrongWeights unless every safetensors file can be read and the index, if there is one, agrees with them."""
    from safetensors import SafetensorError, safe_open

    held: dict[str, str] = {}
    for file in sorted(folder.glob("*.safetensors")):
        if file.name.startswith("."):  # what a killed process left half written
            continue
        try:
            with safe_open(file, framework="pt") as opened:
                names = list(opened.keys())
        except SafetensorError as error:
            raise WrongWeights(f"{file} is cut short or no safetensors file ({error}): fetch it again") from error
        if twice := next((name for name in names if name in held), None):
            raise WrongWeights(f"{folder}: {twice} is in {held[twice]} and in {file.name}: remove one of the files")
        held |= dict.fromkeys(names, file.name)
    index = folder / INDEX
    if not index.exists():
        if held and WHOLE not in held.values():
            raise WrongWeights(
                f"{folder}: its weights are in {_named(sorted(set(held.values())))}, and there is neither {WHOLE} nor "
                f"{INDEX}, where stock transformers looks for them: fetch what is missing, or name the file so"
            )
        return
    listed = weight_map(index)
    wrong = [name for name in {**listed, **held} if listed.get(name) != held.get(name)]
    if wrong:
        raise WrongWeights(
            f"{index}: {_named(wrong)} {'is' if len(wrong) == 1 else 'are'} not in the file that the index says "
            f"({listed.get(wrong[0])}, found in {held.get(wrong[0])}): the checkpoint is incomplete or two are mixed"
        )


def check_loaded(info: Any, where: Path) -> None:
    """WrongWeights if transformers did not find every weight of the model in its files, or found others.

    Args:
        info: what `from_pretrained` returns with `output_loading_info`.
    """
    problems = []
    if missing := sorted(info["missing_keys"]):
        problems.append(f"{_named(missing)} missing in the files")
    if unknown := sorted(name for name in info["unexpected_keys"] if not name.endswith(TABLES)):
        problems.append(f"{_named(unknown)} unknown to the model that config.json describes")
    if wrong := sorted(info["mismatched_keys"], key=str):
        problems.append(f"{_named([str(entry[0]) for entry in wrong])} of another shape")
    if problems:
        raise WrongWeights(f"{where}: {'; '.join(problems)}. Weights and config are not of one model")


def check_tied(folder: Path, config: Any) -> None:
    """WrongWeights if the files hold a head of its own for a config that says it is the embedding."""
    if not config.tie_word_embeddings:
        return
    head, embedding = _read(folder, "lm_head.weight"), _read(folder, "model.embed_tokens.weight")
    if head is not None and embedding is not None and not bool((head == embedding).all()):
        raise WrongWeights(
            f"{folder}: lm_head.weight is not the embedding, and config.json says `tie_word_embeddings: true`, so that "
            "stock transformers would drop it. Correct config.json"
        )


def _read(folder: Path, name: str) -> Tensor | None:
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        if not file.name.startswith("."):
            with safe_open(file, framework="pt") as opened:
                if name in opened.keys():  # noqa: SIM118 - not a mapping
                    tensor: Tensor = opened.get_tensor(name)
                    return tensor
    return None


def _named(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
