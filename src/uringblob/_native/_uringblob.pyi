from uringblob._native.types import Ffi, Lib

ffi: Ffi
lib: Lib
