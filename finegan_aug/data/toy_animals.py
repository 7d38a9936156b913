"""The body plans of the toy animals, as signed distances on a pixel grid.

A shape is its signed distance (negative inside), so one formula serves every resolution.
Local coordinates of an animal: x to the right (it faces right), y down, about one unit long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.float32]  # [S, S]
Point = tuple[float, float]


class Draws:
    """Hands out the uniform numbers of one image in order."""

    def __init__(self, row: npt.NDArray[np.float64]) -> None:
        self._numbers = iter(row.tolist())

    def between(self, low: float, high: float) -> float:
        """The next number, scaled to [low, high)."""
        return low + (high - low) * float(next(self._numbers))


@dataclass(frozen=True)
class Animal:
    """Signed distances of one animal, [S, S] each, in local units."""

    body: Plane  # everything that wears the coat
    head: Plane  # where the head's colour goes (inside the body)
    belly: Plane  # where the belly's colour goes (inside the body)
    horn: Plane  # beak, legs, feelers: beside the body, dark
    shade: Plane  # wing or fin drawn on the body: a darker tone
    eyes: tuple[Point, ...]
    eye_radius: float
    along: Plane  # coordinates of the pattern
    across: Plane


def ellipse(x: Plane, y: Plane, centre: Point, radii: Point, angle: float = 0.0) -> Plane:
    """Approximate signed distance to an ellipse turned clockwise by `angle` radians."""
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    u = (cos * dx + sin * dy) / np.float32(radii[0])
    v = (cos * dy - sin * dx) / np.float32(radii[1])
    k0 = np.sqrt(u * u + v * v)
    u /= np.float32(radii[0])
    v /= np.float32(radii[1])
    return np.asarray(k0 * (k0 - 1) / (np.sqrt(u * u + v * v) + np.float32(1e-6)), np.float32)


def circle(x: Plane, y: Plane, centre: Point, radius: float) -> Plane:
    """Signed distance to a circle."""
    return np.asarray(np.hypot(x - np.float32(centre[0]), y - np.float32(centre[1])) - np.float32(radius), np.float32)


def limb(x: Plane, y: Plane, start: Point, end: Point, radii: Point) -> Plane:
    """Signed distance to a line with round ends that goes from one thickness to another."""
    ax, ay, bx, by = start[0], start[1], end[0] - start[0], end[1] - start[1]
    t = np.clip(((x - np.float32(ax)) * np.float32(bx) + (y - np.float32(ay)) * np.float32(by))
                / np.float32(bx * bx + by * by), 0, 1)  # fmt: skip
    distance = np.hypot(x - np.float32(ax) - t * np.float32(bx), y - np.float32(ay) - t * np.float32(by))
    return np.asarray(distance - (np.float32(radii[0]) + t * np.float32(radii[1] - radii[0])), np.float32)


def polygon(x: Plane, y: Plane, corners: Sequence[Point]) -> Plane:
    """Signed distance to a convex polygon, corners in either sense of rotation (exact along the edges)."""
    edges = list(pairwise([*corners, corners[0]]))
    turn = float(np.sign(sum(ax * by - bx * ay for (ax, ay), (bx, by) in edges)))
    sides = []
    for (ax, ay), (bx, by) in edges:
        length = turn * float(np.hypot(bx - ax, by - ay))
        nx, ny = (by - ay) / length, (ax - bx) / length
        sides.append(x * np.float32(nx) + y * np.float32(ny) - np.float32(nx * ax + ny * ay))
    return np.asarray(np.maximum.reduce(sides), np.float32)


def join(*shapes: Plane) -> Plane:
    """Union."""
    return np.asarray(np.minimum.reduce(shapes), np.float32)


def blend(a: Plane, b: Plane, softness: float) -> Plane:
    """Union with a rounded seam (polynomial smooth minimum)."""
    h = np.maximum(np.float32(softness) - np.abs(a - b), 0)
    return np.asarray(np.minimum(a, b) - h * h * np.float32(0.25 / softness), np.float32)


def bird(x: Plane, y: Plane, draws: Draws) -> Animal:
    """A perching bird: round trunk, head, beak, tail, two legs."""
    tilt, plump, head_size = draws.between(-0.55, -0.15), draws.between(0.9, 1.12), draws.between(0.13, 0.165)
    tail_drop, leg = draws.between(0.0, 0.2), draws.between(0.31, 0.38)
    head_at = (draws.between(0.19, 0.26), draws.between(-0.25, -0.17))
    trunk = ellipse(x, y, (-0.02, 0.04), (0.28, 0.21 * plump), tilt)
    tail = limb(x, y, (-0.18, 0.08), (-0.44, 0.1 + tail_drop), (0.1, 0.055))
    head = circle(x, y, head_at, head_size)
    body = blend(blend(trunk, head, 0.1), tail, 0.08)
    hx, hy = head_at[0] + head_size, head_at[1]
    beak = polygon(x, y, [(hx - 0.05, hy - 0.075), (hx + 0.13, hy + 0.035), (hx - 0.05, hy + 0.1)])
    legs = join(*(limb(x, y, (lx, 0.15), (lx + 0.03, leg), (0.035, 0.03)) for lx in (-0.06, 0.08)))
    return Animal(
        body=body,
        head=head - np.float32(0.015),
        belly=ellipse(x, y, (0.08, 0.17), (0.2, 0.13), tilt),
        horn=join(beak, legs),
        shade=ellipse(x, y, (-0.09, 0.03), (0.17, 0.095), tilt + 0.5),
        eyes=((head_at[0] + 0.045, head_at[1] - 0.03),),
        eye_radius=0.045,
        along=np.asarray(x * np.float32(np.cos(tilt)) + y * np.float32(np.sin(tilt)), np.float32),
        across=np.asarray(y * np.float32(np.cos(tilt)) - x * np.float32(np.sin(tilt)), np.float32),
    )


def butterfly(x: Plane, y: Plane, draws: Draws) -> Animal:
    """A butterfly from above: four wings, seen more or less aslant."""
    upper, lower = draws.between(0.9, 1.08), draws.between(0.85, 1.15)
    lift, fold = draws.between(0.25, 0.6), draws.between(1.0, 1.25)
    side = np.abs(x) * np.float32(fold)
    top = ellipse(side, y, (0.25, -0.14), (0.26 * upper, 0.18 * upper), -lift)
    bottom = ellipse(side, y, (0.19, 0.17), (0.19 * lower, 0.16 * lower), 0.45)
    thorax = limb(x, y, (0.0, -0.18), (0.0, 0.26), (0.075, 0.05))
    face = circle(x, y, (0.0, -0.24), 0.085)
    feelers = limb(np.abs(x), y, (0.03, -0.28), (0.12, -0.41), (0.02, 0.032))
    return Animal(
        body=join(blend(top, bottom, 0.05), thorax, face),
        head=join(thorax, face) - np.float32(0.01),
        belly=bottom + np.float32(0.035),
        horn=feelers,
        shade=thorax,
        eyes=((-0.04, -0.26), (0.04, -0.26)),
        eye_radius=0.034,
        along=np.asarray(np.abs(x) * np.float32(0.9) - y * np.float32(0.25), np.float32),
        across=np.asarray(y + np.float32(0.03), np.float32),
    )


def cat(x: Plane, y: Plane, draws: Draws) -> Animal:
    """A walking cat: long trunk on four legs, eared head, raised tail."""
    girth, length, leg = draws.between(0.13, 0.165), draws.between(0.17, 0.23), draws.between(0.3, 0.37)
    head_size = draws.between(0.135, 0.165)
    head_at = (length + draws.between(0.09, 0.14), draws.between(-0.2, -0.1))
    bend, stride = draws.between(-0.1, 0.08), draws.between(-0.03, 0.05)
    trunk = limb(x, y, (-length, 0.02), (length, 0.02), (girth, girth))
    head = ellipse(x, y, head_at, (head_size * 1.08, head_size))
    hx, hy, h = head_at[0], head_at[1], head_size
    ears = join(
        polygon(x, y, [(hx - 1.05 * h, hy - 0.15 * h), (hx - 0.85 * h, hy - 1.5 * h), (hx - 0.05 * h, hy - 0.75 * h)]),
        polygon(x, y, [(hx + 0.05 * h, hy - 0.75 * h), (hx + 0.85 * h, hy - 1.5 * h), (hx + 1.05 * h, hy - 0.15 * h)]),
    )
    feet = (-length - 0.06 - stride, -length + 0.07 + stride, length - 0.07 - stride, length + 0.05 + stride)
    legs = join(*(limb(x, y, (0.9 * fx, 0.06), (fx, leg), (0.06, 0.048)) for fx in feet))
    knee = (-length - 0.22, -0.12)
    tail = join(
        limb(x, y, (-length - 0.05, -0.04), knee, (0.05, 0.045)),
        limb(x, y, knee, (knee[0] + bend, -0.36), (0.045, 0.045)),
    )
    return Animal(
        body=join(blend(blend(trunk, legs, 0.05), head, 0.05), ears, tail),
        head=join(head, ears) - np.float32(0.012),
        belly=ellipse(x, y, (0.0, 0.15), (length + 0.12, 0.12)),
        horn=ellipse(x, y, (hx + 0.06, hy + 0.35 * h), (0.04, 0.03)),
        shade=polygon(x, y, [(-2.0, leg - 0.05), (2.0, leg - 0.05), (2.0, 2.0), (-2.0, 2.0)]),
        eyes=((hx - 0.02, hy - 0.1 * h), (hx + 0.11, hy - 0.1 * h)),
        eye_radius=0.036,
        along=x,
        across=y,
    )


def fish(x: Plane, y: Plane, draws: Draws) -> Animal:
    """A swimming fish: tall trunk, forked tail, two fins."""
    height, length = draws.between(0.19, 0.25), draws.between(0.31, 0.35)
    fork, sweep = draws.between(0.17, 0.25), draws.between(0.1, 0.2)
    bend = draws.between(-0.5, 0.5)
    y = np.asarray(y - np.float32(bend) * (x - np.float32(0.1)) ** 2, np.float32)  # a swimming curve
    trunk = ellipse(x, y, (0.12, 0.0), (length, height))
    tail = join(
        polygon(x, y, [(-0.1, 0.08), (-0.48, -fork), (-0.34, 0.08)]),
        polygon(x, y, [(-0.1, -0.08), (-0.34, -0.08), (-0.48, fork)]),
    )
    dorsal = polygon(x, y, [(0.22, -0.6 * height), (-0.02, -height - sweep), (-0.12, -0.5 * height)])
    fin = polygon(x, y, [(0.12, 0.6 * height), (-0.04, height + 0.5 * sweep), (-0.06, 0.6 * height)])
    return Animal(
        body=join(blend(trunk, tail, 0.06), dorsal, fin),
        head=np.maximum(trunk - np.float32(0.012), np.float32(0.235) - x - np.float32(0.5) * np.abs(y)),
        belly=ellipse(x, y, (0.1, height), (length, 0.75 * height)),
        horn=ellipse(x, y, (0.12 + length, 0.035), (0.035, 0.03)),
        shade=join(ellipse(x, y, (0.02, 0.06), (0.09, 0.055), -0.3), np.asarray(x + np.float32(0.3), np.float32)),
        eyes=((0.33, -0.055),),
        eye_radius=0.05,
        along=x,
        across=y,
    )


BODY_PLANS: dict[str, Callable[[Plane, Plane, Draws], Animal]] = {
    "bird": bird,
    "butterfly": butterfly,
    "cat": cat,
    "fish": fish,
}
