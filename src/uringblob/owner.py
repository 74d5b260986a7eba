"""Objects that own a resource: they are not copied or pickled.

``copy.copy`` of such an object copies descriptor numbers and references to buffers, and the copy's
finalizer frees them: a store was closed, and its unflushed writes were lost, because a copy of it was
collected.
"""

from __future__ import annotations

from typing import ClassVar, NoReturn, SupportsIndex


class Owner:
    """Raises ``TypeError`` when it, or an object that contains it, is copied or pickled.

    ``_instead`` is the message's advice.
    """

    __slots__ = ()

    _instead: ClassVar[str] = "pass the object itself on"

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} cannot be copied or pickled, because it owns what its end frees: "
            f"{self._instead}"
        )


class StoreOwner(Owner):
    """An :class:`Owner` that is, or is part of, a store."""

    __slots__ = ()

    _instead = "pass the store itself on, and open it anew in another process"
