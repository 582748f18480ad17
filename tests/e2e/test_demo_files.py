"""The demo takes grey volumes and what their files say of them, and replaces nothing that it did not make."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "demo"))

import demo
import inputs
import owned

GREY = np.arange(6 * 8 * 10, dtype=np.uint16).reshape(6, 8, 10)
RGB = np.random.default_rng(0).integers(0, 255, (8, 10, 3), dtype=np.uint8)
COLOUR_VOLUME = np.random.default_rng(0).integers(0, 255, (6, 8, 10, 4), dtype=np.uint8)


def ome(path: Path, data: np.ndarray, axes: list[dict[str, str]], scale: list[float], *, new: bool = True) -> Path:
    """Write an OME-NGFF image of one level, of version 0.5, or of 0.4 in zarr v2."""
    group = zarr.create_group(path, zarr_format=3 if new else 2)
    group.create_array("s0", data=data, chunks=data.shape)
    image = {
        "axes": axes,
        "datasets": [{"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}],
        "coordinateTransformations": [{"type": "scale", "scale": [2.0] * len(scale)}],
    }
    group.attrs.update({"ome": {"version": "0.5", "multiscales": [image]}} if new else {"multiscales": [image]})
    return path


def space(units: str = "nanometer") -> list[dict[str, str]]:
    return [{"name": name, "type": "space", "unit": units} for name in "zyx"]


def saved(save: Callable[..., Any], path: Path, *arguments: Any, **more: Any) -> Path:
    save(path, *arguments, **more)
    return path


def zarr_with(path: Path, **attributes: Any) -> Path:
    zarr.create_array(path, data=GREY).attrs.update(attributes)
    return path


SIZED = {
    "tif of ImageJ": lambda at: saved(
        tifffile.imwrite, at / "v.tif", GREY, imagej=True, resolution=(4, 2), metadata={"spacing": 3.0, "axes": "ZYX"}
    ),
    "tif of OME": lambda at: saved(
        tifffile.imwrite,
        at / "v.ome.tif",
        GREY,
        metadata={
            "axes": "ZYX",
            "PhysicalSizeX": 250,
            "PhysicalSizeXUnit": "nm",
            "PhysicalSizeY": 0.5,
            "PhysicalSizeZ": 3.0,
        },
    ),
    "zarr of OME 0.5": lambda at: ome(at / "v.zarr", GREY, space(), [1500.0, 250.0, 125.0]),
    "zarr of OME 0.4": lambda at: ome(at / "v.zarr", GREY, space("micrometer"), [1.5, 0.25, 0.125], new=False),
    "array in a zarr of OME": lambda at: ome(at / "v.zarr", GREY, space(), [1500.0, 250.0, 125.0]) / "s0",
    "zarr of OME with a channel": lambda at: ome(
        at / "v.zarr", GREY[None], [{"name": "c", "type": "channel"}, *space()], [1.0, 1500.0, 250.0, 125.0]
    ),
    "zarr with voxel_size": lambda at: zarr_with(at / "v.zarr", voxel_size=[12, 2, 1]),
    "zarr with resolution": lambda at: zarr_with(
        at / "v.zarr", resolution=[3.0, 0.5, 0.25], axis_names=["z", "y", "x"]
    ),
    "npz with voxel_size": lambda at: saved(np.savez, at / "v.npz", raw=GREY, voxel_size=[12, 2, 1]),
    "npz with spacing": lambda at: saved(np.savez, at / "v.npz", raw=GREY, spacing=np.array([6.0, 1.0, 0.5])),
}


@pytest.mark.parametrize("kind", SIZED)
def test_the_size_of_a_voxel_is_that_of_the_file(tmp_path: Path, kind: str) -> None:
    """Only ratios matter; units may differ from axis to axis. What is told beats the file."""
    path = SIZED[kind](tmp_path)
    volume = inputs.load(path)
    assert np.array_equal(volume.data, GREY)
    assert np.allclose(np.divide(volume.voxel_size, volume.voxel_size[2]), [12, 2, 1])
    assert volume.known_from == "of the file"
    assert inputs.load(path, voxel_size=(5.0, 1.0, 1.0)).voxel_size == (5.0, 1.0, 1.0)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"metadata": {"axes": "ZYX"}},
        {"photometric": "minisblack", "resolution": (3, 3)},
    ],
)
def test_a_tiff_that_does_not_say_it_is_guessed(tmp_path: Path, more: dict[str, Any]) -> None:
    """A stack without spacing has no depth that anybody knows."""
    volume = inputs.load(saved(tifffile.imwrite, tmp_path / "v.tif", GREY, **more))
    assert (volume.voxel_size, volume.known_from) == ((1.0, 1.0, 1.0), "guessed from the shape")


COLOURED = {
    "rgb.tif": (lambda path: tifffile.imwrite(path, RGB), RGB),
    "rgba.tif": (lambda path: tifffile.imwrite(path, np.dstack([RGB, RGB[..., :1]]), photometric="rgb"), None),
    "planes.tif": (
        lambda path: tifffile.imwrite(path, np.moveaxis(RGB, 2, 0), photometric="rgb", planarconfig="separate"),
        RGB,
    ),
    "stack.tif": (lambda path: tifffile.imwrite(path, COLOUR_VOLUME[..., :3], photometric="rgb"), COLOUR_VOLUME),
    "channels.ome.tif": (
        lambda path: tifffile.imwrite(path, np.moveaxis(COLOUR_VOLUME, 3, 0), metadata={"axes": "CZYX"}),
        COLOUR_VOLUME,
    ),
    "rgb.npy": (lambda path: np.save(path, RGB), RGB),
    "volume.npy": (lambda path: np.save(path, COLOUR_VOLUME), COLOUR_VOLUME),
    "rgb.npz": (lambda path: np.savez(path, RGB), RGB),
    "rgb.zarr": (lambda path: zarr.create_array(path, data=RGB), RGB),
    "volume.zarr": (lambda path: zarr.create_array(path, data=COLOUR_VOLUME), COLOUR_VOLUME),
    "ome.zarr": (
        lambda path: ome(
            path, np.moveaxis(COLOUR_VOLUME, 3, 0), [{"name": "c", "type": "channel"}, *space()], [1.0, 1.0, 1.0, 1.0]
        ),
        COLOUR_VOLUME,
    ),
}


@pytest.mark.parametrize("name", COLOURED)
def test_colours_are_no_third_axis(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Refused with a sentence, in every kind of file; taken with the channel that is said."""
    write, data = COLOURED[name]
    write(tmp_path / name)
    out = tmp_path / "out"
    assert demo.main(["--input", str(tmp_path / name), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "choose a channel with --channel 0 to" in said
    assert not out.exists()
    volume = inputs.load(tmp_path / name, channel=1)
    assert volume.data.ndim == len(volume.voxel_size) == (2 if data is not COLOUR_VOLUME else 3)
    if data is not None:
        assert np.array_equal(volume.data, data[..., 1])
    with pytest.raises(inputs.InputError, match="--channel is 7, but input"):
        inputs.load(tmp_path / name, channel=7)


def test_a_channel_of_a_grey_volume_is_refused(tmp_path: Path) -> None:
    """So is a series in time."""
    with pytest.raises(inputs.InputError, match="has no channels"):
        inputs.load(saved(np.save, tmp_path / "v.npy", GREY), channel=0)
    path = saved(tifffile.imwrite, tmp_path / "t.tif", GREY, imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(inputs.InputError, match="with 6 times"):
        inputs.load(path)


# ----- what is in the folder ------------------------------------------------------------------------------------------


def prepare(out: Path, source: Path) -> None:
    demo.prepare(demo.parse(["--input", str(source), "--out", str(out)]), out)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def labels_in(out: Path) -> None:
    zarr.open_group(out / "volume.zarr", mode="a").create_array("hand_labels", data=GREY)


SOMEBODY_ELSES = {
    "an array of the demo's name": lambda out: zarr.create_array(out / "volume.zarr", data=GREY),
    "a group of the demo's name": labels_in,
    "records": lambda out: (out / "record").mkdir(),
    "a pipeline file": lambda out: (out / "pipeline.yaml").write_text("name: mine\n"),
    "a picture": lambda out: (out / "demo.png").write_bytes(b"mine"),
    "a module": lambda out: (out / "watershed.py").write_text("# mine\n"),
    "a run": lambda out: (out / ".blockyard" / "demo").mkdir(parents=True),
}


@pytest.mark.parametrize("what", SOMEBODY_ELSES)
def test_what_somebody_else_made_is_left_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    """Exit status 2, a sentence that names it, every byte as it was."""
    source = saved(np.save, tmp_path / "in.npy", GREY)
    out = tmp_path / "out"
    out.mkdir()
    SOMEBODY_ELSES[what](out)
    before = everything(out)
    assert demo.main(["--input", str(source), "--out", str(out)]) == 2
    assert "which no demo made" in capsys.readouterr().err
    assert everything(out) == before


LATER = {
    "volume.zarr/hand_labels": labels_in,
    "record/notes.txt": lambda out: (out / "record" / "notes.txt").write_text("mine"),
    "pipeline.yaml": lambda out: (out / "pipeline.yaml").write_text("name: mine\n"),
    "watershed.py": lambda out: (out / "watershed.py").write_text("# better\n"),
}


@pytest.mark.parametrize("what", LATER)
def test_what_was_added_or_changed_in_a_demos_folder_is_left_and_said(tmp_path: Path, what: str) -> None:
    """An array beside the demo's own, an edited pipeline file: a second demo replaces none of them."""
    source, out = saved(np.save, tmp_path / "in.npy", GREY), tmp_path / "out"
    prepare(out, source)
    LATER[what](out)
    before = everything(out)
    with pytest.raises(inputs.InputError, match=what.rsplit("/", maxsplit=1)[-1]):
        prepare(out, source)
    assert everything(out) == before


def test_a_demo_replaces_what_a_demo_made(tmp_path: Path) -> None:
    """Also where the first one was ended half-way, and with its picture; but never its own input."""
    source, out = saved(np.save, tmp_path / "in.npy", GREY), tmp_path / "out"
    prepare(out, source)
    owned.write(out, "demo.png", b"a picture")
    (out / "record" / "17.csv").write_text("")
    (out / "pipeline.yaml").unlink()
    prepare(out, source)
    assert not (out / "record" / "17.csv").exists()
    with pytest.raises(inputs.InputError, match="lies in"):
        prepare(out, out / "volume.zarr" / "raw")
    assert zarr.open_array(out / "volume.zarr" / "raw", mode="r").shape == GREY.shape
