#pragma once

#include "core/array/device.h"
#include "core/array/tensor_view.h"

namespace fastbts {

struct SimilarityArgs {
  AnyView<5> image;
  View<const float, 2> text;
  float scale;
  View<const float, 1> bias;
  AnyView<5, void> out;
};

/// Where the image matches each prompt: out = scale cos(image, text[k]) + bias[k]; lengths below
/// 1e-12 count as that.
///   image  (B, D, H, W, E)  floats, rows dense    read
///   text   (K, E)           float32, rows dense   read
///   scale  a number                               read
///   bias   (K)              float32, dense        read
///   out    (B, K, D, H, W)  floats, any strides   written
/// Floats of this and of the next two are float32, on a CUDA device float16.
void similarity(const SimilarityArgs& args, int n_threads, Stream stream);

struct TextReadsArgs {
  View<const float, 3> query;
  AnyView<5> key, value;
  View<float, 3> out, scratch;
};

/// Attention of text vectors to the voxels: out[b, k] is the mean of value over the voxels,
/// weighted by softmax(query[b, k] key / sqrt(E)).
///   query       (B, K, E)        float32, rows dense  read
///   key, value  (B, D, H, W, E)  floats, rows dense   read     at least one voxel
///   out         (B, K, E)        float32, rows dense  written
///   scratch     (B, K, D H W)    float32, dense       written
void text_reads(const TextReadsArgs& args, int n_threads, Stream stream);

struct ImageReadsArgs {
  AnyView<5> query;
  View<const float, 3> key, value;
  AnyView<5, void> out;
};

/// Attention of voxels to the text vectors: out is the mean of value over k, weighted by
/// softmax(query key[b, k] / sqrt(E)).
///   query       (B, D, H, W, E)  floats, rows dense   read
///   key, value  (B, K, E)        float32, rows dense  read     K from 1 to 8
///   out         (B, D, H, W, E)  floats, rows dense   written
void image_reads(const ImageReadsArgs& args, int n_threads, Stream stream);

inline constexpr int kMostPrompts = 8;

void similarity_cpu(const SimilarityArgs& args, int n_threads);
void similarity_cuda(const SimilarityArgs& args, Stream stream);
void text_reads_cpu(const TextReadsArgs& args, int n_threads);
void text_reads_cuda(const TextReadsArgs& args, Stream stream);
void image_reads_cpu(const ImageReadsArgs& args, int n_threads);
void image_reads_cuda(const ImageReadsArgs& args, Stream stream);

}  // namespace fastbts
