"""One toy scene: an animal in its coat on a textured ground.

All geometry is relative to the side of the image, so the same numbers give the same scene at any resolution;
one pixel of softness at the edge of every shape is the antialiasing.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finegan_aug.data.toy_animals import BODY_PLANS, Animal, Draws, Plane, circle, ellipse

Picture = npt.NDArray[np.float32]  # [S, S, 3], 0 to 1
Colour = tuple[float, float, float]  # hue, saturation, value; each 0 to 1

# Four pigments serve all coats, so one colour is no coat by itself; the ground borrows them too.
TEAL, ORANGE, CREAM, PLUM = (0.50, 0.75, 0.62), (0.07, 0.80, 0.93), (0.13, 0.22, 0.97), (0.82, 0.45, 0.34)
GROUND = (TEAL, ORANGE, CREAM, PLUM, (0.27, 0.50, 0.55), (0.60, 0.30, 0.75), (0.09, 0.45, 0.50))
COARSE, FINE = 6, 13  # nodes of the ground's noise along a side
NUM_DRAWS = 320  # more than any scene takes


@dataclass(frozen=True)
class Coat:
    """A plumage, worn by every body plan alike: four pigments and a pattern."""

    base: Colour
    belly: Colour
    mark: Colour
    head: Colour
    pattern: str  # "plain", "spots" or "stripes"


COATS = {
    "hooded": Coat(base=TEAL, belly=CREAM, mark=TEAL, head=ORANGE, pattern="plain"),
    "spotted": Coat(base=ORANGE, belly=ORANGE, mark=CREAM, head=PLUM, pattern="spots"),
    "striped": Coat(base=CREAM, belly=CREAM, mark=PLUM, head=TEAL, pattern="stripes"),
}


def draw_scene(parent: str, plumage: str, numbers: npt.NDArray[np.float64], resolution: int) -> tuple[Picture, Plane]:
    """Draw one animal of body plan `parent` in coat `plumage`.

    Args:
        numbers: uniform in [0, 1), float64 [NUM_DRAWS]; they decide the whole scene.
        resolution: side of the image, pixels.

    Returns:
        The picture, float32 [S, S, 3] in [0, 1], and the animal's cover, float32 [S, S] in [0, 1].
    """
    draws = Draws(numbers)
    centres = (np.arange(resolution, dtype=np.float32) + np.float32(0.5)) / np.float32(resolution)
    side = draws.between(0.50, 0.66)
    reach = 0.25 * (0.5 - 0.56 * side)
    middle = [0.5 + draws.between(-reach, reach) for _ in range(2)]
    angle, mirror = draws.between(-0.2, 0.2), 1.0 if draws.between(0, 1) < 0.5 else -1.0
    dx = (centres[None, :] - np.float32(middle[0])) / np.float32(side * mirror)
    dy = (centres[:, None] - np.float32(middle[1])) / np.float32(side)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    animal = BODY_PLANS[parent](x, y, draws)
    pixel = np.float32(1.0 / (side * resolution))
    picture = ground(centres, draws)
    cover = dress(picture, animal, COATS[plumage], x, y, pixel, draws)
    tint = [draws.between(0.92, 1.05) for _ in range(3)]
    picture *= np.float32(draws.between(0.82, 1.1)) * np.array(tint, np.float32)
    return np.clip(picture, 0, 1), cover


def dress(picture: Picture, animal: Animal, coat: Coat, x: Plane, y: Plane, pixel: np.float32, draws: Draws) -> Plane:
    """Paint the animal over the picture in place; returns its cover, float32 [S, S] in [0, 1]."""

    def inside(distance: Plane) -> Plane:
        return np.asarray(np.clip(np.float32(0.5) - distance / pixel, 0, 1), np.float32)

    hue, saturation, value = draws.between(-0.045, 0.045), draws.between(0.75, 1.15), draws.between(0.8, 1.12)

    def pigment(colour: Colour) -> Plane:
        return rgb(colour, hue + draws.between(-0.02, 0.02), saturation, value * draws.between(0.93, 1.07))

    body = inside(animal.body)
    skin = np.empty_like(picture)
    skin[:] = pigment(coat.base)
    bib, hood = np.float32(draws.between(-0.03, 0.05)), np.float32(draws.between(0.0, 0.055))
    paint(skin, inside(animal.belly - bib), pigment(coat.belly))
    paint(skin, inside(marks(animal, coat.pattern, draws)), pigment(coat.mark))
    skin *= (1 - np.float32(0.2) * inside(animal.shade))[..., None]
    paint(skin, inside(animal.head - hood), pigment(coat.head))
    # Light from above and a darker rim make the flat shape round.
    light = 1 - np.float32(0.25) * np.clip(y + np.float32(0.3), 0, 1)
    light *= 1 - np.float32(0.6) * np.clip(1 + animal.body / np.float32(0.035), 0, 1)
    skin *= light[..., None]
    horn = inside(animal.horn)
    paint(picture, horn, rgb(PLUM, hue, 1.0, 0.8 * value))
    paint(picture, body, skin)
    for eye in animal.eyes:
        paint(picture, inside(circle(x, y, eye, animal.eye_radius)), np.array([0.98, 0.98, 0.95], np.float32))
        pupil = circle(x, y, (eye[0] + 0.25 * animal.eye_radius, eye[1]), 0.6 * animal.eye_radius)
        paint(picture, inside(pupil), np.array([0.07, 0.05, 0.1], np.float32))
    return np.maximum(body, horn)


def marks(animal: Animal, pattern: str, draws: Draws) -> Plane:
    """Signed distance to the coat's pattern; positive everywhere for the plain one."""
    stretch, phase, shift = draws.between(0.9, 1.15), draws.between(0, 1), draws.between(0, 1)
    share = draws.between(0, 1)
    if pattern == "plain":
        return np.ones_like(animal.along)
    if pattern == "stripes":
        period = 0.22 * stretch
        turns = animal.along / np.float32(period) + np.float32(phase)
        return np.asarray(
            (np.abs(turns - np.floor(turns) - 0.5) - (0.18 + 0.1 * share)) * np.float32(period), np.float32
        )
    side = np.float32(0.23 * stretch)  # spots at the nodes of a lattice of triangles
    rows = animal.across / (np.float32(0.866) * side) + np.float32(shift)
    row = np.floor(rows + np.float32(0.5))
    columns = animal.along / side + np.float32(phase) + np.float32(0.5) * (row % 2)
    u, v = columns - np.floor(columns + np.float32(0.5)), np.float32(0.866) * (rows - row)
    return np.asarray((np.hypot(u, v) - np.float32(0.28 + 0.1 * share)) * side, np.float32)


def ground(centres: Plane, draws: Draws) -> Picture:
    """A textured ground of two pigments and a few blobs; float32 [S, S, 3], before the light."""

    def pigment(low: float, high: float) -> Plane:
        colour = GROUND[int(draws.between(0, len(GROUND)))]
        return rgb(colour, draws.between(-0.04, 0.04), draws.between(low, high), draws.between(0.7, 1.05))

    slope = np.float32(draws.between(-0.5, 0.5)) * (centres[:, None] - np.float32(0.5))
    share = np.clip(noise(centres, COARSE, draws) * np.float32(2.4) - np.float32(0.7) + slope, 0, 1)
    picture = pigment(0.3, 0.65) + np.zeros((*share.shape, 3), np.float32)
    paint(picture, share, pigment(0.3, 0.65))
    for _ in range(3):
        at = (draws.between(0, 1), draws.between(0, 1))
        radii = (draws.between(0.06, 0.16), draws.between(0.04, 0.1))
        blob = ellipse(centres[None, :], centres[:, None], at, radii, draws.between(0, 3.14))
        paint(picture, np.clip(np.float32(0.5) - blob / np.float32(0.04), 0, 1) * np.float32(0.7), pigment(0.3, 0.7))
    picture *= (np.float32(0.75) + np.float32(0.5) * noise(centres, FINE, draws))[..., None]
    return picture


def noise(centres: Plane, nodes: int, draws: Draws) -> Plane:
    """Smooth noise in [0, 1]: a cubic B-spline surface over nodes x nodes uniform numbers."""
    heights = np.array([[draws.between(0, 1) for _ in range(nodes)] for _ in range(nodes)], np.float32)
    # The outer nodes lie outside the image, so that the surface does not fade at its border.
    distance = np.abs(1 + centres[:, None] * np.float32(nodes - 3) - np.arange(nodes, dtype=np.float32))
    near = np.float32(2 / 3) - distance * distance * (1 - np.float32(0.5) * distance)
    far = np.maximum(2 - distance, 0) ** 3 / np.float32(6)
    weights = np.where(distance < 1, near, far)
    return np.asarray(weights @ heights @ weights.T, np.float32)


def rgb(colour: Colour, hue_shift: float = 0.0, saturation: float = 1.0, value: float = 1.0) -> Plane:
    """The colour as float32 [3] in [0, 1], after a shift of hue and factors on saturation and value."""
    h, s, v = colour
    shifted = colorsys.hsv_to_rgb((h + hue_shift) % 1.0, min(s * saturation, 1.0), min(v * value, 1.0))
    return np.array(shifted, np.float32)


def paint(picture: Picture, cover: Plane, colour: Plane) -> None:
    """Lay a colour (or picture) over the picture in place, as strongly as `cover`, 0 to 1."""
    picture += cover[..., None] * (colour - picture)
