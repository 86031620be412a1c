"""Projections of a gradient (m, n) to a low rank: by singular vectors, or at random from a seed."""

import random
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Sides:
    """From which sides a gradient is projected: left gives (r, n), right (m, r), both (r, r)."""

    left: bool
    right: bool

    def low_rank_size(self, shape: torch.Size, rank: int) -> int:
        """Numbers of the projected gradient."""
        rows, columns = shape
        rank = possible_rank(shape, rank)
        return (rank if self.left else rows) * (rank if self.right else columns)

    def projection_size(self, shape: torch.Size, rank: int) -> int:
        """Numbers of the projections themselves."""
        rows, columns = shape
        rank = possible_rank(shape, rank)
        return rank * (self.left * rows + self.right * columns)


@dataclass(frozen=True)
class Projection:
    """Orthonormal or random: `left` (m, r), `right` (r, n); a side that isn't projected has None."""

    left: torch.Tensor | None = None
    right: torch.Tensor | None = None

    def down(self, gradient: torch.Tensor) -> torch.Tensor:
        """The gradient (m, n) in the low rank."""
        low = gradient if self.left is None else self.left.T @ gradient
        return low if self.right is None else low @ self.right.T

    def up(self, low: torch.Tensor) -> torch.Tensor:
        """What has the low rank's shape, back in (m, n)."""
        high = low if self.left is None else self.left @ low
        return high if self.right is None else high @ self.right


def sides(kind: str, shape: torch.Size) -> Sides:
    """The sides of a projection type; std projects the shorter dimension of a matrix, reverse_std the longer one."""
    rows, columns = shape
    right = {"std": rows >= columns, "reverse_std": rows < columns, "left": False}.get(kind, True)
    return Sides(left=not right or kind == "full", right=right)


def possible_rank(shape: torch.Size, rank: int) -> int:
    """The rank, or the shorter dimension of the matrix where that is less."""
    return min(rank, *shape)


def singular(gradient: torch.Tensor, rank: int, chosen: Sides) -> Projection:
    """The leading singular vectors of a gradient, computed in float32, in its own type."""
    left, _, right = torch.linalg.svd(gradient.float(), full_matrices=False)
    rank = possible_rank(gradient.shape, rank)
    # Copies: a slice would keep the whole matrix, and be saved with it.
    return Projection(
        left[:, :rank].to(gradient.dtype, copy=True, memory_format=torch.contiguous_format)
        if chosen.left
        else None,
        right[:rank].to(gradient.dtype, copy=True, memory_format=torch.contiguous_format)
        if chosen.right
        else None,
    )


def gaussian(gradient: torch.Tensor, rank: int, chosen: Sides, seed: int) -> Projection:
    """Entries from N(0, 1/rank), the same for the same seed."""
    generator = None if gradient.is_meta else torch.Generator(gradient.device).manual_seed(seed)
    rows, columns = gradient.shape
    rank = possible_rank(gradient.shape, rank)

    def draw(*shape: int) -> torch.Tensor:
        drawn = torch.randn(*shape, generator=generator, device=gradient.device, dtype=torch.float32)
        return (drawn / rank**0.5).to(gradient.dtype)

    return Projection(
        draw(rows, rank) if chosen.left else None, draw(rank, columns) if chosen.right else None
    )


def derived_seed(*parts: object) -> int:
    """A seed of its own for each combination of parts, the same in each process and version."""
    return random.Random("/".join(map(str, parts))).getrandbits(63)
