"""A class whose instances the cyclic garbage collector does not track.

CPython tracks every instance of a class made by a ``class`` statement, also of one that can refer to nothing:
while 100,000 guids were listed it walked them again and again, and the event loop stood still for 37 ms.
A type that is made from a *spec*, as in C, is tracked only if it asks for that (``PyType_FromSpecWithBases``,
in the stable ABI since Python 3.3).  Checked on CPython 3.10 to 3.13.
"""

from __future__ import annotations

import sys
from typing import Any, Final, TypeVar

T = TypeVar("T")

_DEFAULT: Final = 1 << 18
_BASETYPE: Final = 1 << 10

#: Types refer to the names in their specs.
_specs: list[object] = []


def untracked(cls: type[T]) -> type[T]:
    """Return ``cls`` as a type whose instances are not tracked; as it is where Python is not CPython.

    It must have ``__slots__ = ()``, and may not use ``super()`` without arguments: that means the class given.
    """
    if sys.implementation.name != "cpython":
        return cls
    try:
        import ctypes
    except ImportError:  # a CPython that was built without libffi
        return cls

    class Slot(ctypes.Structure):
        _fields_ = (("slot", ctypes.c_int), ("function", ctypes.c_void_p))

    class Spec(ctypes.Structure):
        _fields_ = (
            ("name", ctypes.c_char_p),
            ("basic_size", ctypes.c_int),
            ("item_size", ctypes.c_int),
            ("flags", ctypes.c_uint),
            ("slots", ctypes.POINTER(Slot)),
        )

    name, end = f"{cls.__module__}.{cls.__qualname__}".encode(), Slot(0, None)
    spec = Spec(name, 0, 0, _DEFAULT | _BASETYPE, ctypes.pointer(end))  # the sizes are the base's
    _specs.append(spec)
    prototype = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.POINTER(Spec), ctypes.py_object)
    make: Any = prototype(("PyType_FromSpecWithBases", ctypes.pythonapi))
    made: type[T] = make(ctypes.byref(spec), cls.__bases__)
    for attribute, value in vars(cls).items():
        if attribute != "__slots__":
            setattr(made, attribute, value)
    return made
