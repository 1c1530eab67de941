"""A model trained on 4-bit weights is merged into what those weights are, and not into what they were made from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
bitsandbytes = pytest.importorskip("bitsandbytes", reason="needs bitsandbytes, the extra qlora")

from merge_rig import merge_here, spec_of, trained  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from overnight.domain.attempt import Outcome  # noqa: E402
from overnight.trainer import model as models  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default"), pytest.mark.timeout(300)]


def test_each_layer_that_was_4_bit_is_written_as_training_saw_it(tmp_path: Path) -> None:
    lora = {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}
    rig = trained(tmp_path, method="qlora", lora=lora)
    spec = dataclasses.replace(spec_of(rig), tolerance=1e-5)
    report = merge_here(rig, spec)
    assert report.outcome is Outcome.COMPLETED, report.message
    print(f"qlora: {report.max_abs_difference:.3g} off, {report.max_abs_difference_from_base:.3g} from the base")
    assert report.tensors_changed == 14, "also the layers without an adapter: training saw them in 4 bits"
    device = models.plain_device("cpu")
    four = models.read_weights(Path(spec.base_model), device, quantized=True).model.layers[0]
    written = load_file(Path(spec.target) / "model.safetensors")
    base = load_file(Path(spec.base_model) / "model.safetensors")
    adapter = load_file(Path(spec.checkpoint) / "adapter_model.safetensors")

    def spread(layer: object) -> object:
        weight = layer.weight  # type: ignore[attr-defined]
        return bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)

    name = "model.layers.0.mlp.up_proj"
    assert torch.equal(written[f"{name}.weight"], spread(four.mlp.up_proj))
    assert not torch.equal(written[f"{name}.weight"], base[f"{name}.weight"])
    name = "model.layers.0.self_attn.q_proj"
    first, second = (adapter[f"base_model.model.{name}.lora_{one}.weight"].double() for one in "AB")
    expected = spread(four.self_attn.q_proj) + ((second @ first) * 2).float()  # type: ignore[operator]
    assert torch.allclose(written[f"{name}.weight"], expected, rtol=0, atol=1e-7)
