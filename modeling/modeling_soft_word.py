"""One learned vector inside a frozen embedding table, without touching the table."""

from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["SoftWordEmbedding"]

# Start of the official training.
INITIALIZER_STD = 0.02


class SoftWordEmbedding(nn.Embedding):
    """An embedding table that gives the learned vector where its id stands.

    The vector is float32 whatever the table is, so that small steps of its training are not lost to rounding; it is
    cast where it is put among the rows.

    Args:
        table: the embedding to wrap; its weight is shared, not copied.
        soft_word_id: id of the learned word, which may lie behind the table; `None` for no word.
        placeholder_ids: ids behind the table that stand for something put in later (picture, padding). Every other id
            behind the table is an error, as in any embedding.
    """

    def __init__(self, table: nn.Embedding, soft_word_id: int | None, placeholder_ids: Sequence[int] = ()) -> None:
        rows, width = table.weight.shape
        super().__init__(rows, width, padding_idx=table.padding_idx, _weight=table.weight)
        self.weight = table.weight
        self.soft_word_id = soft_word_id
        self.placeholder_ids = tuple(i for i in placeholder_ids if i >= rows)
        if soft_word_id is None:
            self.register_parameter("soft_word", None)
        else:
            self.soft_word = nn.Parameter(
                table.weight.new_empty(1, width, dtype=torch.float32).normal_(0.0, INITIALIZER_STD)
            )

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """int64 ids of any shape to (..., width)."""
        inside = input
        for placeholder in self.placeholder_ids:
            inside = inside.masked_fill(input == placeholder, 0)
        if self.soft_word is None:
            return super().forward(inside)
        learned = input == self.soft_word_id
        rows = super().forward(inside.masked_fill(learned, 0))
        return torch.where(learned.unsqueeze(-1), self.soft_word.to(rows.dtype), rows)
