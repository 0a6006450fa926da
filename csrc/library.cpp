// Every operator of ntkfast on one screen. Each is implemented and registered in csrc/ops/<name>.cpp; the arguments
// that they share are explained in csrc/ops/sweep_args.h.
//
// What an operator writes lies apart from what it reads, and from what else it writes. Products and contractions look;
// sweeps, which would have to compare a hundred tensors, rely on it.

#include <torch/csrc/stable/library.h>

#define CHAIN "Tensor[] parameters, int[] activations, float[] constants"

STABLE_TORCH_LIBRARY(ntkfast, m) {
  m.def("jet_forward(" CHAIN
        ", Tensor[] points, Tensor[] beta, Tensor[] omega, int[] groups, "
        "Tensor(a!) out, Tensor(b!) A, Tensor(c!) Z) -> ()");
  m.def("jet_backward(" CHAIN ", Tensor[] omega, int[] groups, Tensor[] seeds, Tensor Z, Tensor(a!) D) -> ()");
  m.def("diag(" CHAIN
        ", Tensor[] points, Tensor[] beta, Tensor[] omega, int[] groups, Tensor[] seeds, "
        "int tile_rows, Tensor(a!) out) -> ()");
  m.def("linear_sweep(" CHAIN
        ", Tensor[] points, Tensor[] beta, Tensor[] omega, int[] groups, Tensor[] seeds, Tensor offset, Tensor pull, "
        "int tile_rows, Tensor(a!) rows, Tensor(b!)[] grads, Tensor(c!) diag, Tensor(d!) A, Tensor(e!) D) -> ()");
  m.def("factor_diag(" CHAIN ", int[] groups, Tensor A, Tensor D, Tensor(a!) out) -> ()");
  m.def("vjp(" CHAIN ", int[] groups, Tensor A, Tensor D, Tensor x, Tensor(a!)[] grads) -> ()");
  m.def("jvp(" CHAIN ", int[] groups, Tensor A, Tensor D, Tensor[] tangents, Tensor(a!) out) -> ()");
  m.def("gram(" CHAIN
        ", int[] groups, Tensor A, Tensor D, int[] other_groups, Tensor other_A, Tensor other_D, bool symmetric, "
        "int[] use_explicit, int chunk, int together, Tensor(a!) out) -> ()");
  // For tests and benchmarks alone: what the sweeps do between their layers, and the product that they are made of.
  m.def(
      "activation_forward(Tensor z, Tensor omega, int activation, float beta, float threshold, int directions, "
      "Tensor(a!) h) -> ()");
  m.def(
      "activation_backward(Tensor z, Tensor g, Tensor omega, int activation, float beta, float threshold, int "
      "directions, "
      "Tensor(a!) zbar) -> ()");
  m.def("gemm(Tensor a, Tensor b, Tensor(a!) out) -> ()");
}
