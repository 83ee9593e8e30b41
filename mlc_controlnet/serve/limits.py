"""What one request may ask for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Upper bounds of a request. Beyond them a server's memory or patience would end.

    Attributes:
        body_bytes: of the body of a request.
        body_seconds: until the body has arrived completely.
        picture_pixels: of one picture that a request brings.
        pictures: control images and other pictures that a request brings.
        images: that one request draws.
        steps: of one drawn picture.
        waiting: requests that wait while another one is drawn.
    """

    body_bytes: int = 32 * 2**20
    body_seconds: float = 30.0
    picture_pixels: int = 32_000_000
    pictures: int = 16
    images: int = 16
    steps: int = 150
    waiting: int = 8
