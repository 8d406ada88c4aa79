"""Images that VMs are made from, and the recipes that images are built from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from google.protobuf.message import Message

from pvc.provisioner.v1 import image_pb2
from pvc_client.aio.operations import AsyncPending, AsyncWorking
from pvc_client.aio.transport import AsyncTransport
from pvc_client.contract import PROVISIONER, Options
from pvc_client.names import full_name

if TYPE_CHECKING:
    from pvc.provisioner.v1 import provisioner_service_pb2 as pb

Image = image_pb2.Image


class AsyncImages(AsyncWorking[Image]):
    """The cluster's images."""

    def __init__(self, transport: AsyncTransport) -> None:
        super().__init__(transport, PROVISIONER, Image, "images")

    async def recipes(self) -> list[pb.Recipe]:
        """The recipes that PVC brings along."""
        return list((await self._ask(PROVISIONER["ListRecipes"])).recipes)

    async def build(
        self,
        image_id: str,
        *,
        pool: str,
        recipe_id: str = "",
        recipe_text: str = "",
        **options: Unpack[Options],
    ) -> AsyncPending[Image]:
        """Builds an image from a recipe of PVC's or, given as text, of one's own."""
        recipe = (
            {"recipe_text": recipe_text} if recipe_text else {"recipe_id": recipe_id or image_id}
        )
        return await self._begin(
            PROVISIONER["BuildImage"],
            Image,
            options,
            image_id=image_id,
            pool=full_name("pools", pool),
            **recipe,
        )

    async def import_file(
        self,
        image_id: str,
        file: str,
        *,
        pool: str,
        description: str = "",
        **options: Unpack[Options],
    ) -> AsyncPending[Image]:
        """Makes an image from an uploaded file (files/…)."""
        return await self._begin(
            PROVISIONER["ImportImage"],
            Image,
            options,
            image_id=image_id,
            file=full_name("files", file, "file"),
            pool=full_name("pools", pool, "pool"),
            description=description,
        )

    async def delete(self, image: str, **options: Unpack[Options]) -> AsyncPending[Message]:
        """Removes an image that nothing is a copy on write of."""
        method = PROVISIONER["DeleteImage"]
        return await self._begin(method, Message, options, name=self.name(image))
