# The CUDA ops with the SIMT emulation of the tests, in _C itself: kernels as C++, launches as calls
# of simt.h. The tests build the same by build.py, without CMake.
set(simt ${CMAKE_CURRENT_SOURCE_DIR}/tests/simt)
file(GLOB launchers CONFIGURE_DEPENDS csrc/core/cuda/*.cu csrc/ops/*.cu)
set(simt_sources ${simt}/kernels.cpp)
foreach(launcher ${launchers})
  get_filename_component(name ${launcher} NAME_WE)
  set(emulated ${CMAKE_CURRENT_BINARY_DIR}/simt/${name}.cpp)
  add_custom_command(
    OUTPUT ${emulated}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_CURRENT_BINARY_DIR}/simt
    COMMAND ${Python_EXECUTABLE} ${simt}/build.py ${launcher} ${emulated}
    DEPENDS ${launcher} ${simt}/build.py)
  list(APPEND simt_sources ${emulated})
endforeach()
target_sources(_C PRIVATE ${simt_sources})
# Kernels are written for nvcc, whose warnings the builds for GPUs heed.
set_source_files_properties(${simt_sources} PROPERTIES COMPILE_OPTIONS "-O1;-w")
target_include_directories(_C BEFORE PRIVATE ${simt})
target_compile_definitions(_C PRIVATE FASTBTS_SIMT FASTBTS_HAS_CUDA)
message(STATUS "fastbts: CUDA ops: on the emulated device of the tests")
