// The extension module ntkfast._C: what was built, with what, and for which machines. Tensor operations go through the
// dispatcher (csrc/library.cpp), never through here.

#include <pybind11/pybind11.h>

#include <string>

#include "cpu/dispatch.h"

namespace py = pybind11;

namespace {

#ifdef NTKFAST_CUDA
constexpr bool kCudaBuilt = true;
#else
constexpr bool kCudaBuilt = false;
#endif

// "80,90" -> ("80", "90"); "" -> ()
py::tuple split(const std::string& text) {
  return text.empty() ? py::tuple() : py::tuple(py::str(text).attr("split")(","));
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Build information of the native core.";
  m.attr("version") = NTKFAST_VERSION;
  m.attr("torch_version") = NTKFAST_TORCH;
  m.attr("compiler") = "GCC " __VERSION__;
  m.attr("cpu_levels") = split(NTKFAST_CPU_LEVELS);
  m.attr("cuda_built") = kCudaBuilt;
  m.attr("cuda_architectures") = split(NTKFAST_CUDA_ARCHITECTURES);
  m.def(
      "isa", [] { return std::string(ntkfast::isa_name()); },
      "The instruction-set level in use: \"base\", \"avx2\", \"avx512\" or \"amx\".");
}
