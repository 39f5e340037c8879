#pragma once

#include <array>
#include <cstddef>
#include <ostream>
#include <sstream>
#include <stdexcept>

namespace fastbts {

/// An array that breaks the contract of an op; fastbts.errors.InputError in Python.
class InputError : public std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

/// Sizes, boxes or numbers that are invalid or do not fit each other; fastbts.errors.OptionsError
/// in Python.
class OptionsError : public std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

/// A device that was asked for and cannot be used here; fastbts.errors.DeviceError in Python.
class DeviceError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Writes "(1, 2, 3)". Declared before require, which could not find it later, as std::array is in
/// another namespace.
template <typename T, std::size_t N>
std::ostream& operator<<(std::ostream& out, const std::array<T, N>& values) {
  out << "(";
  for (std::size_t i = 0; i < N; ++i) out << (i ? ", " : "") << values[i];
  return out << ")";
}

/// Throws Error with the parts written one after another, unless ok.
template <typename Error, typename... Parts>
void require(bool ok, const Parts&... parts) {
  if (ok) return;
  std::ostringstream message;
  (message << ... << parts);
  throw Error(message.str());
}

}  // namespace fastbts
