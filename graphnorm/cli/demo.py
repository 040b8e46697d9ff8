"""``graphnorm demo``: unbalance two networks, canonicalise them, and draw what it did."""

from __future__ import annotations

from pathlib import Path

from graphnorm.errors import InputError
from graphnorm.util.atomic import replacing


def run_demo(folder: Path) -> None:
    """Canonicalise a ResNet-18 (torch) and a small CNN (ONNX); write pictures, models and a report.

    Args:
        folder: made if it isn't there; files of an earlier demo in it are replaced.

    Raises:
        InputError: torch, onnx or matplotlib is missing, or the folder cannot be made.
        NotEquivalentError: a rescaled network isn't the same function.
    """
    try:
        import matplotlib  # noqa: F401
        import onnx
        import onnxruntime  # noqa: F401
        import torch
    except ImportError as error:
        raise InputError(
            f"the demo needs torch, onnx and matplotlib: pip install 'graphnorm[all]' ({error})"
        ) from error
    from graphnorm.api.canonicalize import canonicalize
    from graphnorm.cli import display
    from graphnorm.cli.files import write_json
    from graphnorm.cli.models.demo import resnet18c, small_onnx
    from graphnorm.pictures.energy import save_energy

    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder}: is a file; name a folder")
    out = display.console(None)
    out.print("A type-C ResNet-18 (torch) and a small CNN (ONNX), both with deliberately unbalanced weights.")
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with display.progress("building") as tell:
        torch_result = canonicalize(resnet18c(), image, progress=lambda stage: tell(f"ResNet-18: {stage}"))
        model = small_onnx()
        onnx_result = canonicalize(model, image.numpy(), progress=lambda stage: tell(f"CNN: {stage}"))
        folder.mkdir(parents=True, exist_ok=True)
        tell("drawing")
        with replacing(folder / "cnn.onnx") as original:
            original.write_bytes(model.SerializeToString())
        onnx_result.source.save(onnx_result.model, folder / "cnn.canonical.onnx", True)
        reports = {"resnet18c": torch_result.report, "cnn": onnx_result.report}
        for name, report in reports.items():
            title = f"{report.model}: energy per layer"
            save_energy(report.energy, folder / f"{name}.png", title)
    write_json({name: report.to_dict() for name, report in reports.items()}, str(folder / "report.json"))
    onnx.checker.check_model(str(folder / "cnn.canonical.onnx"))
    for name, report in reports.items():
        out.print(display.report_table(report, report.model, str(folder / f"{name}.png")))
    out.print(f"written to {folder}: resnet18c.png, cnn.png, cnn.onnx, cnn.canonical.onnx, report.json")
