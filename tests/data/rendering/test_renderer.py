from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mtlcli.data.rendering.layout import DIFFICULTIES, Scene, draw_scene
from mtlcli.data.rendering.renderer import find_surfaces, mark_edges, pixel_rays, render
from mtlcli.data.rendering.solids import CLASSES
from tests.oracles import ray_casting

HEIGHT, WIDTH = 18, 24


def a_scene(level: str = "hard", seed: int = 0, **changes: Any) -> Scene:
    return draw_scene(np.random.default_rng(seed), replace(DIFFICULTIES[level], **changes))


@pytest.mark.parametrize(("level", "seed"), [("easy", 0), ("medium", 1), ("hard", 2), ("hard", 3)])
def test_every_pixel_agrees_with_the_equations_of_its_surfaces(level: str, seed: int) -> None:
    scene = a_scene(level, seed)
    result = render(scene, pixel_rays(HEIGHT, WIDTH), np.random.default_rng(0))
    assert {"floor", "background"} <= {CLASSES[code] for code in np.unique(result.classes)}
    for row in range(HEIGHT):
        for column in range(WIDTH):
            ray = ray_casting.pixel_ray(row, column, HEIGHT, WIDTH)
            hit = ray_casting.cast(scene.solids, [0.0, 0.0, 0.0], ray)
            pixel = result.classes[row, column], result.parts[row, column]
            if hit is None:
                assert pixel == (0, 255)
                assert np.isnan(result.depth[row, column]) and np.isnan(result.normals[:, row, column]).all()
                continue
            assert pixel == (scene.solids[hit.solid].label, hit.part)
            assert result.depth[row, column] == pytest.approx(hit.distance, rel=1e-6)
            assert result.normals[:, row, column] == pytest.approx(hit.normal, abs=1e-6)
            assert ray_casting.dot(hit.normal, ray) < 0  # normals face the camera


def test_normals_agree_with_finite_differences_of_the_depth() -> None:
    rays = pixel_rays(48, 64)
    for seed in range(3):
        scene = a_scene("hard", seed)
        depth, surface = find_surfaces(scene.solids, rays)
        normals = render(scene, rays, np.random.default_rng(0)).normals
        points = np.where(np.isfinite(depth), depth, 0.0) * rays
        across, down = points[:, 1:-1, 2:] - points[:, 1:-1, :-2], points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
        estimate = np.cross(down, across, axis=0)
        with np.errstate(invalid="ignore"):
            estimate /= np.linalg.norm(estimate, axis=0)
        inner = surface[1:-1, 1:-1]
        flat = inner >= 0
        for neighbor in (surface[1:-1, 2:], surface[1:-1, :-2], surface[2:, 1:-1], surface[:-2, 1:-1]):
            flat &= neighbor == inner
        shapes = np.array([solid.shape for solid in scene.solids])[inner]
        cosine = np.nansum(estimate * normals[:, 1:-1, 1:-1], axis=0)
        assert (cosine[flat & (shapes == "rectangle")] > 1 - 1e-6).all()
        assert np.median(cosine[flat & (shapes == "sphere")]) > 0.99


def test_edges_agree_with_a_loop_over_neighbors() -> None:
    _, surface = find_surfaces(a_scene().solids, pixel_rays(HEIGHT, WIDTH))
    edges = mark_edges(surface)
    for row in range(HEIGHT):
        for column in range(WIDTH):
            near = [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
            others = [surface[i, j] for i, j in near if 0 <= i < HEIGHT and 0 <= j < WIDTH]
            assert edges[row, column] == any(other != surface[row, column] for other in others)
    assert 0.02 < edges.mean() < 0.5
    assert np.array_equal(mark_edges(surface[:, ::-1]), edges[:, ::-1])


@pytest.mark.parametrize("level", ["easy", "medium"])
def test_gray_values_follow_from_albedo_light_and_shadow(level: str) -> None:
    scene = a_scene(level, 4, textured=0.0, noise=0.0)
    image = render(scene, pixel_rays(HEIGHT, WIDTH), np.random.default_rng(0)).image
    shadows = 0
    for row in range(HEIGHT):
        for column in range(WIDTH):
            ray = ray_casting.pixel_ray(row, column, HEIGHT, WIDTH)
            hit = ray_casting.cast(scene.solids, [0.0, 0.0, 0.0], ray)
            if hit is None or scene.solids[hit.solid].shape != "rectangle":
                continue
            cosine = max(0.0, ray_casting.dot(hit.normal, scene.light.tolist()))
            point = [hit.distance * x for x in ray]
            if scene.shadows and cosine and ray_casting.in_shadow(scene, point, hit.normal):
                cosine, shadows = 0.0, shadows + 1
            light = scene.color * (scene.ambient + (1 - scene.ambient) * cosine)
            expected = 255 * scene.solids[hit.solid].texture.colors[0] * light
            assert np.abs(image[:, row, column] - expected.clip(0, 255)).max() <= 0.5 + 1e-6
    assert (shadows > 0) == scene.shadows


def test_the_rays_of_every_third_pixel_are_those_of_a_smaller_image() -> None:
    scene = a_scene()
    small, large = (render(scene, pixel_rays(*size), np.random.default_rng(0)) for size in ((HEIGHT, WIDTH), (54, 72)))
    assert np.array_equal(small.classes, large.classes[1::3, 1::3])
    assert np.allclose(small.depth, large.depth[1::3, 1::3], equal_nan=True)


def test_noise_has_the_stated_standard_deviation() -> None:
    rays = pixel_rays(HEIGHT, WIDTH)
    clean, noisy = (
        render(a_scene("easy", 1, noise=noise), rays, np.random.default_rng(0)).image.astype(float)
        for noise in (0.0, 6.0)
    )
    difference = (noisy - clean)[(clean > 30) & (clean < 225)]
    assert difference.std() == pytest.approx(6.0, rel=0.1) and abs(difference.mean()) < 0.6
