/// Drives a TensorRT plugin through TensorRT's own interfaces, in the order in which a builder and
/// an execution context call them; on host memory, as the launchers below it are emulated.
#include <NvInferRuntime.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

using namespace nvinfer1;

extern "C" IPluginCreatorInterface* const* getCreators(std::int32_t& n_creators);
extern "C" void setLoggerFinder(ILoggerFinder* finder);

namespace {

/// What plugins log.
class Log final : public ILogger {
 public:
  void log(Severity, const char* message) noexcept override { text = message; }
  std::string text;
};

class Finder final : public ILoggerFinder {
 public:
  ILogger* findLogger() override { return &log; }
  Log log;
};

Finder finder;

void expect(bool ok, const std::string& what) {
  if (!ok) throw std::runtime_error(what + (finder.log.text.empty() ? "" : ": " + finder.log.text));
}

std::unique_ptr<IPluginV3> create(const std::string& name, TensorRTPhase phase) {
  std::int32_t n = 0;
  IPluginCreatorInterface* const* const creators = getCreators(n);
  for (std::int32_t i = 0; i < n; ++i) {
    expect(std::string(creators[i]->getInterfaceInfo().kind) == "PLUGIN CREATOR_V3ONE",
           "kind of creator");
    auto* const creator = static_cast<IPluginCreatorV3One*>(creators[i]);
    const std::string domain = creator->getPluginNamespace(), version = creator->getPluginVersion();
    if (creator->getPluginName() != name || domain != "fastbts" || version != "1") continue;
    return std::unique_ptr<IPluginV3>(
        creator->createPlugin("layer", creator->getFieldNames(), phase));
  }
  throw std::runtime_error("no creator of " + name);
}

template <typename Capability>
Capability& capability(IPluginV3& plugin, PluginCapabilityType type) {
  return static_cast<Capability&>(*plugin.getCapabilityInterface(type));
}

void expect_shape_and_type_of_the_first(IPluginV3OneBuild& build,
                                        const std::vector<DynamicPluginTensorDesc>& all) {
  const auto n_in = static_cast<std::int32_t>(all.size()) - 1;
  // Expressions are opaque to a plugin that only hands them on: addresses of these bytes do, and no
  // builder is called.
  std::array<char, 128> expressions{}, builder{};
  std::vector<DimsExprs> shapes(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    shapes[i].nbDims = all[i].desc.dims.nbDims;
    for (int axis = 0; axis < shapes[i].nbDims; ++axis)
      shapes[i].d[axis] = reinterpret_cast<const IDimensionExpr*>(
          &expressions[8 * i + static_cast<std::size_t>(axis)]);
  }
  DimsExprs shape{};
  const auto status = build.getOutputShapes(shapes.data(), n_in, nullptr, 0, &shape, 1,
                                            reinterpret_cast<IExprBuilder&>(builder));
  expect(status == 0, "getOutputShapes");
  expect(
      shape.nbDims == shapes[0].nbDims && std::equal(shape.d, shape.d + shape.nbDims, shapes[0].d),
      "output shape");
  std::vector<DataType> types(static_cast<std::size_t>(n_in), all[0].desc.type);
  DataType type = DataType::kINT32;
  expect(build.getOutputDataTypes(&type, 1, types.data(), n_in) == 0 && type == all[0].desc.type,
         "output type");
}

void expect_one_format(IPluginV3OneBuild& build, std::vector<DynamicPluginTensorDesc> all) {
  const auto n = static_cast<std::int32_t>(all.size());
  for (std::int32_t at = 0; at < n; ++at) {
    PluginTensorDesc& asked = all[static_cast<std::size_t>(at)].desc;
    const PluginTensorDesc right = asked;
    const auto supported = [&] {
      return build.supportsFormatCombination(at, all.data(), n - 1, 1);
    };
    expect(supported(), "tensors of one type and format are supported");
    asked.type = DataType::kINT8;
    expect(!supported(), "another type is not");
    asked = right;
    const bool is_half = right.type != DataType::kFLOAT;
    for (const TensorFormat format : {TensorFormat::kLINEAR, TensorFormat::kDHWC8,
                                      TensorFormat::kDHWC, TensorFormat::kCDHW32}) {
      asked.format = format;
      const bool free =
          at == 0 && (format == TensorFormat::kLINEAR ||
                      format == (is_half ? TensorFormat::kDHWC8 : TensorFormat::kDHWC));
      expect(supported() == (free || format == right.format), "no other format is");
    }
    asked = right;
  }
}

/// A workspace of exactly this size, full of NaN; throws if something beyond its end has been
/// written.
class Memory {
 public:
  explicit Memory(std::size_t n_bytes)
      : n_bytes_(n_bytes),
        data_(static_cast<char*>(std::aligned_alloc(kGuard, (n_bytes / kGuard + 2) * kGuard))) {
    std::memset(data_.get(), 0xFF, n_bytes + kGuard);
  }
  void* data() { return n_bytes_ == 0 ? nullptr : data_.get(); }
  void expect_untouched_end() const {
    for (std::size_t i = 0; i < kGuard; ++i)
      expect(data_.get()[n_bytes_ + i] == '\xFF', "end of the workspace");
  }

 private:
  static constexpr std::size_t kGuard = 256;
  struct Free {
    void operator()(char* data) const { std::free(data); }
  };
  std::size_t n_bytes_;
  std::unique_ptr<char, Free> data_;
};

void run(const char* name, const std::vector<DynamicPluginTensorDesc>& all,
         const void* const* inputs, void* output) {
  const auto n_in = static_cast<std::int32_t>(all.size()) - 1;
  const auto at_build = create(name, TensorRTPhase::kBUILD);
  auto& build = capability<IPluginV3OneBuild>(*at_build, PluginCapabilityType::kBUILD);
  expect(build.getNbOutputs() == 1, "one output");
  expect_shape_and_type_of_the_first(build, all);
  expect_one_format(build, all);
  expect(build.configurePlugin(all.data(), n_in, all.data() + n_in, 1) == 0, "configurePlugin");
  Memory workspace(build.getWorkspaceSize(all.data(), n_in, all.data() + n_in, 1));

  const auto loaded = create(name, TensorRTPhase::kRUNTIME);
  auto& core = capability<IPluginV3OneCore>(*loaded, PluginCapabilityType::kCORE);
  expect(core.getPluginName() == std::string(name), "name");
  const std::unique_ptr<IPluginV3> attached(
      capability<IPluginV3OneRuntime>(*loaded, PluginCapabilityType::kRUNTIME)
          .attachToContext(nullptr));
  auto& runtime = capability<IPluginV3OneRuntime>(*attached, PluginCapabilityType::kRUNTIME);
  expect(runtime.getFieldsToSerialize()->nbFields == 0, "no state");
  std::vector<PluginTensorDesc> descs;
  for (const DynamicPluginTensorDesc& desc : all) descs.push_back(desc.desc);
  expect(runtime.onShapeChange(descs.data(), n_in, &descs.back(), 1) == 0, "onShapeChange");
  void* const outputs[] = {output};
  expect(runtime.enqueue(descs.data(), &descs.back(), inputs, outputs, workspace.data(),
                         simt::only_stream) == 0,
         "enqueue");
  workspace.expect_untouched_end();
}

}  // namespace

/// Runs a plugin on n_in inputs of one type (0 float32, 1 float16, 2 bfloat16), each of a format,
/// that of the output is the first's; sizes are those of all inputs, one after another. The
/// workspace is made for shapes that are `grown` larger along every axis. Returns what went wrong,
/// or null.
extern "C" __attribute__((visibility("default"))) const char* run_plugin(
    const char* name, int type, int n_in, const int* formats, const int* ranks,
    const std::int64_t* sizes, int grown, const void* const* inputs, void* output) {
  static std::string message;
  constexpr std::array kTypes{DataType::kFLOAT, DataType::kHALF, DataType::kBF16};
  finder.log.text.clear();
  setLoggerFinder(&finder);
  simt::only_stream = reinterpret_cast<cudaStream_t>(&finder);  // never dereferenced
  std::vector<DynamicPluginTensorDesc> all;
  for (int i = 0; i < n_in; ++i) {
    DynamicPluginTensorDesc desc{};
    desc.desc.type = kTypes.at(static_cast<std::size_t>(type));
    desc.desc.format = static_cast<TensorFormat>(formats[i]);
    desc.desc.dims.nbDims = ranks[i];
    for (int axis = 0; axis < ranks[i]; ++axis) desc.desc.dims.d[axis] = *sizes++;
    desc.min = desc.opt = desc.max = desc.desc.dims;
    for (int axis = 0; axis < ranks[i]; ++axis) desc.max.d[axis] += grown;
    all.push_back(desc);
  }
  all.push_back(all.front());
  try {
    run(name, all, inputs, output);
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}
