#pragma once

#include <pybind11/pybind11.h>

namespace fastbts {

/// The layers of the network, for the native engine.
void bind_layers(pybind11::module_& module);

}  // namespace fastbts
