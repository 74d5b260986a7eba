"""What may not be there twice: objects whose end frees something.

``copy.copy`` of such an object copies the numbers of descriptors and the references to buffers, and the
end of the copy ends the original: a store was closed, and its unflushed writes were lost, because a copy
of it was collected.
"""

from __future__ import annotations

from typing import ClassVar, NoReturn, SupportsIndex


class Owner:
    """Refuses to be copied or pickled, also as a part of something else; the original is unharmed.

    ``_instead`` says what to do for which one might want a copy.
    """

    __slots__ = ()

    _instead: ClassVar[str] = "pass the object itself on"

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} cannot be copied or pickled, because it owns what its end frees: "
            f"{self._instead}"
        )


class StoreOwner(Owner):
    """The same for stores."""

    __slots__ = ()

    _instead = "pass the store itself on, and open it anew in another process"
