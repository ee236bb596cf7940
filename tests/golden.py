"""The fixture of the reference implementation's numbers, and the weights that its README defines by seeds."""

import numpy as np
from conftest import ROOT

FIXTURES = ROOT / "tests" / "fixtures"


def fixture_weights(golden):
    """The weights as the fixture's README defines them: a seed a variable, in ``weight_names`` order."""
    shapes = reference_shapes()
    weights = {}
    for i, name in enumerate(golden["weight_names"]):
        shape = shapes[str(name)]
        scale = 0.05 if len(shape) == 1 else 1 / np.sqrt(np.prod(shape[:-1]))
        if "embeddings" in name:
            scale = 0.25
        weights[str(name)] = (np.random.RandomState(100 + i).randn(*shape) * scale).astype(np.float32)
    return weights


def reference_shapes():
    """TensorFlow shapes of the variables: conv (h, w, in, out), dense (in, out), codebook (2, K)."""
    conv = [(3, 16), *[(16, 16)] * 4, (16, 32), *[(32, 32)] * 9]
    shapes = {}
    for i, (in_channels, out_channels) in enumerate(conv):
        shapes[f"sppo2_model/pi/layer_{i}/kernel:0"] = (3, 3, in_channels, out_channels)
        shapes[f"sppo2_model/pi/layer_{i}/bias:0"] = (out_channels,)
    for i, (n_in, n_out) in zip((15, 16, 17), [(2048, 256), (256, 128), (128, 2)], strict=True):
        shapes[f"sppo2_model/pi/layer_{i}/kernel:0"] = (n_in, n_out)
        shapes[f"sppo2_model/pi/layer_{i}/bias:0"] = (n_out,)
    shapes["sppo2_model/pi/embeddings_vqvae:0"] = (2, 8)
    shapes |= {"sppo2_model/pi/w:0": (256, 15), "sppo2_model/pi/b:0": (15,)}
    shapes |= {"sppo2_model/vf/w:0": (256, 1), "sppo2_model/vf/b:0": (1,)}
    return shapes
