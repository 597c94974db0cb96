import numpy as np
import pytest
import torch
from PIL import Image

from cm3leon.images.pixels import on_white, square, to_images, to_tensor

RED, WHITE = (255, 0, 0), (255, 255, 255)


def colours(image):
    return {tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3).tolist()}


def palette_with_a_transparent_colour():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, *RED])
    image.info["transparency"] = 1
    return image


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (Image.new("RGBA", (4, 4), (255, 0, 0, 0)), WHITE),
        (Image.new("RGBA", (4, 4), (255, 0, 0, 255)), RED),
        (Image.new("RGBA", (4, 4), (255, 0, 0, 51)), (255, 204, 204)),
        (Image.new("LA", (4, 4), (0, 0)), WHITE),
        (palette_with_a_transparent_colour(), WHITE),
        (Image.new("L", (4, 4), 7), (7, 7, 7)),
        (Image.new("1", (4, 4), 1), WHITE),
        (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), RED),
        (Image.new("RGB", (4, 4), RED), RED),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_transparent_parts_are_white_and_all_is_rgb(image, colour):
    made = on_white(image)
    assert (made.mode, made.size) == ("RGB", (4, 4))
    assert colours(made) == {colour}


@pytest.mark.parametrize("size", [(30, 10), (10, 30)])
def test_the_centre_square_is_kept(size):
    image = Image.new("RGB", size, RED)
    left, top = (size[0] - 10) // 2, (size[1] - 10) // 2
    image.paste(Image.new("RGB", (10, 10), (0, 0, 255)), (left, top))
    made = square(image, 5)
    assert made.size == (5, 5)
    # Lanczos looks a little beyond the square
    assert all(blue >= 240 for _, _, blue in colours(made))


@pytest.mark.parametrize("size", [(31, 10), (30, 10)])
def test_the_square_is_in_the_middle_even_between_two_pixels(size):
    image = Image.new("RGB", size, RED)
    width = 12 - size[0] % 2
    image.paste((0, 0, 255), ((size[0] - width) // 2, 0, (size[0] + width) // 2, 10))
    made = np.asarray(square(image, 5)).astype(int)
    assert abs(made - made[:, ::-1]).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (7, 5), (400, 300)])
def test_any_size_becomes_the_side_asked_for(size):
    assert square(Image.new("RGB", size, RED), 16).size == (16, 16)
    assert colours(square(Image.new("RGB", size, RED), 16)) == {RED}


def test_a_picture_of_the_right_size_is_left_as_it_is(pictures):
    assert square(pictures[0], 16).tobytes() == pictures[0].tobytes()


def test_to_images_is_the_inverse_of_to_tensor():
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, -1)
    every = np.concatenate([every, 255 - every])
    pixels = to_tensor([Image.fromarray(array) for array in every])
    assert pixels.shape == (2, 3, 16, 16)
    assert pixels.dtype == torch.float32
    assert (pixels.min(), pixels.max()) == (-1, 1)
    again = np.stack([np.asarray(image) for image in to_images(pixels)])
    assert np.array_equal(again, every)


def test_channels_keep_their_order():
    pixels = to_tensor([Image.new("RGB", (2, 2), RED)])
    assert pixels[0, :, 0, 0].tolist() == [1, -1, -1]


def test_values_outside_are_clamped():
    pixels = torch.tensor([-7.0, 0.0, 7.0])[None, :, None, None].expand(1, 3, 2, 2)
    assert colours(to_images(pixels)[0]) == {(0, 128, 255)}


def test_half_precision_is_drawn_too():
    assert colours(to_images(torch.ones(1, 3, 2, 2).bfloat16())[0]) == {WHITE}
