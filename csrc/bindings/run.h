#pragma once

#include <pybind11/stl.h>

#include <cstdint>

#include "bindings/borrow.h"

namespace fastbts {

namespace py = pybind11;
using Array = py::object;
using StreamHandle = std::uintptr_t;

inline Stream stream_of(StreamHandle handle) { return {reinterpret_cast<void*>(handle)}; }

/// Runs an op without the GIL. borrow_args makes its arguments with a Borrower.
template <typename Args, typename BorrowArgs>
void run(void (*op)(const Args&, int, Stream), const char* name, int n_threads, StreamHandle stream,
         BorrowArgs&& borrow_args) {
  Borrower borrow(name, stream_of(stream));
  const Args args = borrow_args(borrow);
  const py::gil_scoped_release release;
  op(args, n_threads, stream_of(stream));
}

}  // namespace fastbts
