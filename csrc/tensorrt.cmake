# TensorRT plugins of the ONNX nodes, over the CUDA ops: a library that TensorRT loads. It calls
# nothing of TensorRT's own libraries, so NvInfer.h is enough; TensorRT's archives and packages have
# it, its pip wheels do not.
set(FASTBTS_TENSORRT AUTO CACHE STRING
    "TensorRT plugins: AUTO where there are CUDA ops and NvInfer.h; ON or fail; OFF")
set_property(CACHE FASTBTS_TENSORRT PROPERTY STRINGS AUTO ON OFF)

if(FASTBTS_TENSORRT)
  find_path(TensorRT_INCLUDE_DIR NvInfer.h HINTS ${TensorRT_ROOT} ENV TensorRT_ROOT
            PATH_SUFFIXES include)
endif()
if(FASTBTS_TENSORRT STREQUAL "ON" AND NOT TensorRT_INCLUDE_DIR)
  message(FATAL_ERROR "FASTBTS_TENSORRT=ON, but NvInfer.h is not found: set TensorRT_ROOT to "
                      "TensorRT's folder, or take AUTO")
endif()
if(FASTBTS_TENSORRT STREQUAL "ON" AND NOT TARGET cuda_ops)
  message(FATAL_ERROR "FASTBTS_TENSORRT=ON, but there are no CUDA ops: set "
                      "FASTBTS_CUDA=ON too")
endif()
if(NOT FASTBTS_TENSORRT OR NOT TensorRT_INCLUDE_DIR OR NOT TARGET cuda_ops)
  message(STATUS "fastbts: TensorRT plugins: no")
  return()
endif()
message(STATUS "fastbts: TensorRT plugins: with ${TensorRT_INCLUDE_DIR}")

file(GLOB plugin_sources CONFIGURE_DEPENDS csrc/tensorrt/*.cpp)
add_library(
  fastbts_tensorrt MODULE ${plugin_sources})
target_include_directories(fastbts_tensorrt PRIVATE csrc)
target_include_directories(
  fastbts_tensorrt SYSTEM PRIVATE ${TensorRT_INCLUDE_DIR} ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
target_compile_features(fastbts_tensorrt PRIVATE cxx_std_17)
target_compile_options(fastbts_tensorrt PRIVATE -Wall -Wextra -Wpedantic -Wconversion
                                                $<$<BOOL:${FASTBTS_WERROR}>:-Werror>)
set_target_properties(
  fastbts_tensorrt PROPERTIES CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
                              CUDA_RUNTIME_LIBRARY Static)
target_link_libraries(fastbts_tensorrt PRIVATE cuda_ops)
install(TARGETS fastbts_tensorrt LIBRARY DESTINATION fastbts)
