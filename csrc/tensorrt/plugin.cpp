/// The TensorRT plugins of the nodes, and the library's two entry points: samples/trtexec/README.md
/// of NVIDIA/TensorRT.
///
/// No exception leaves a plugin: it writes the error to TensorRT's log and returns a status other
/// than 0.
#include <atomic>
#include <cstring>
#include <exception>
#include <new>
#include <string>

#include "tensorrt/node.h"

namespace fastbts {
namespace {

using namespace nvinfer1;

constexpr const char* kVersion = "1";          // of the domain, which the parser looks for
constexpr const char* kNamespace = "fastbts";  // the parser uses the node's domain

std::atomic<ILoggerFinder*> logger_finder{nullptr};

void log_error(const char* node, const char* what) noexcept {
  try {
    ILoggerFinder* const finder = logger_finder;
    ILogger* const logger = finder == nullptr ? nullptr : finder->findLogger();
    if (logger != nullptr)
      logger->log(ILogger::Severity::kERROR, (std::string(node) + ": " + what).c_str());
  } catch (...) {  // the status must be enough
  }
}

/// Runs fn; 0, or 1 if it threw.
template <typename Fn>
std::int32_t guarded(const char* node, Fn&& fn) noexcept {
  try {
    fn();
    return 0;
  } catch (const std::exception& error) {
    log_error(node, error.what());
  } catch (...) {
    log_error(node, "unknown error");
  }
  return 1;
}

const PluginFieldCollection kNoFields{};

/// A node as a layer, without state.
class Plugin final : public IPluginV3,
                     public IPluginV3OneCore,
                     public IPluginV3OneBuild,
                     public IPluginV3OneRuntime {
 public:
  explicit Plugin(const Node& node) : node_(node) {}

  IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
    switch (type) {
      case PluginCapabilityType::kCORE:
        return static_cast<IPluginV3OneCore*>(this);
      case PluginCapabilityType::kBUILD:
        return static_cast<IPluginV3OneBuild*>(this);
      case PluginCapabilityType::kRUNTIME:
        return static_cast<IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }
  IPluginV3* clone() noexcept override { return new (std::nothrow) Plugin(node_); }
  IPluginV3* attachToContext(IPluginResourceContext*) noexcept override { return clone(); }

  const char* getPluginName() const noexcept override { return node_.name; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }
  const PluginFieldCollection* getFieldsToSerialize() noexcept override { return &kNoFields; }

  std::int32_t getNbOutputs() const noexcept override { return 1; }
  std::int32_t getOutputDataTypes(DataType* out, std::int32_t, const DataType* in,
                                  std::int32_t) const noexcept override {
    out[0] = in[0];
    return 0;
  }
  std::int32_t getOutputShapes(const DimsExprs* in, std::int32_t n_in, const DimsExprs*,
                               std::int32_t, DimsExprs* out, std::int32_t,
                               IExprBuilder&) noexcept override {
    return guarded(node_.name, [&] {
      require_ranks(n_in, [&](std::size_t i) { return in[i].nbDims; });
      out[0] = in[0];
    });
  }
  bool supportsFormatCombination(std::int32_t at, const DynamicPluginTensorDesc* all,
                                 std::int32_t n_in, std::int32_t) noexcept override {
    const PluginTensorDesc &first = all[0].desc, &asked = all[at].desc;
    const bool known = first.type == DataType::kFLOAT || first.type == DataType::kHALF ||
                       first.type == DataType::kBF16;
    const bool is_feature = at < static_cast<std::int32_t>(node_.n_features) || at == n_in;
    const bool last = is_feature && first.format == channels_last_format(first.type);
    const TensorFormat expected = last ? first.format : TensorFormat::kLINEAR;
    return known && asked.type == first.type && asked.format == expected;
  }
  std::int32_t configurePlugin(const DynamicPluginTensorDesc*, std::int32_t,
                               const DynamicPluginTensorDesc*, std::int32_t) noexcept override {
    return 0;
  }
  std::size_t getWorkspaceSize(const DynamicPluginTensorDesc* in, std::int32_t,
                               const DynamicPluginTensorDesc*,
                               std::int32_t) const noexcept override {
    Workspace workspace;
    guarded(node_.name, [&] {
      Tensors largest;
      for (std::size_t i = 0; i < node_.n_inputs; ++i)
        largest[i] = {nullptr, in[i].desc.type, in[i].max, in[i].desc.format};
      node_.run(largest, nullptr, workspace, Stream{});
    });
    return workspace.n_bytes();
  }

  std::int32_t onShapeChange(const PluginTensorDesc* in, std::int32_t n_in, const PluginTensorDesc*,
                             std::int32_t) noexcept override {
    return guarded(node_.name, [&] {
      require_ranks(n_in, [&](std::size_t i) { return in[i].dims.nbDims; });
      require_shapes(node_, tensors(in, [](std::size_t) { return nullptr; }));
    });
  }
  std::int32_t enqueue(const PluginTensorDesc* in, const PluginTensorDesc*,
                       const void* const* inputs, void* const* outputs, void* memory,
                       cudaStream_t stream) noexcept override {
    return guarded(node_.name, [&] {
      Workspace workspace(memory);
      node_.run(tensors(in, [&](std::size_t i) { return inputs[i]; }), outputs[0], workspace,
                Stream{stream});
    });
  }

 private:
  template <typename Rank>
  void require_ranks(std::int32_t n_in, Rank&& rank) const {
    require<InputError>(static_cast<std::size_t>(n_in) == node_.n_inputs, "expected ",
                        node_.n_inputs, " inputs, got ", n_in);
    for (std::size_t i = 0; i < node_.n_inputs; ++i)
      require<InputError>(static_cast<std::size_t>(rank(i)) == std::strlen(node_.shapes[i]),
                          "input ", i, ": expected shape ", node_.shapes[i], ", got rank ",
                          rank(i));
  }

  template <typename Data>
  Tensors tensors(const PluginTensorDesc* in, Data&& data) const {
    Tensors inputs;
    for (std::size_t i = 0; i < node_.n_inputs; ++i)
      inputs[i] = {data(i), in[i].type, in[i].dims, in[i].format};
    return inputs;
  }

  const Node& node_;
};

class Creator final : public IPluginCreatorV3One {
 public:
  explicit Creator(const Node& node) : node_(node) {}

  IPluginV3* createPlugin(const char*, const PluginFieldCollection*,
                          TensorRTPhase) noexcept override {
    return new (std::nothrow) Plugin(node_);
  }
  const PluginFieldCollection* getFieldNames() noexcept override { return &kNoFields; }
  const char* getPluginName() const noexcept override { return node_.name; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  const Node& node_;
};

}  // namespace
}  // namespace fastbts

#define FASTBTS_EXPORT extern "C" __attribute__((visibility("default")))

FASTBTS_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(std::int32_t& n_creators) {
  static fastbts::Creator bridge(fastbts::kSemanticBridge), attention(fastbts::kSemanticAttention);
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&bridge, &attention};
  n_creators = 2;
  return creators;
}

FASTBTS_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
  fastbts::logger_finder = finder;
}
