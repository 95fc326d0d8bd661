#!/usr/bin/env bash
# Makes a folder for XLA_EXTENSION_DIR out of the XLA in TensorFlow's wheel, to run the second engine where no libxla_extension is at hand.
#
#     pip install tensorflow-cpu==2.21.0 libclang==18.1.1
#     eval "$(bench/xla_from_tensorflow.sh PYTHON DIR)"      # PYTHON, an interpreter that has them; DIR, a folder to make
#     cargo test --release --features xla-rs --test xla_rs
#
# The wheel has XLA's headers and exports its symbols, but for MLIR and the loading of plugins. Headers that say so stand in for those;
# of the crate `xla` 0.5.4 only what asks for them fails then (StableHLO as text, plugins), which this program does not use.
set -euo pipefail

python=$1
mkdir -p "$2/include" "$2/lib"
dir=$(cd "$2" && pwd)
wheel=$("$python" -c 'import importlib.util as u; print(u.find_spec("tensorflow").submodule_search_locations[0])')
clang=$("$python" -c 'import clang, os; print(os.path.join(list(clang.__path__)[0], "native"))')

cp -rsf "$wheel"/include/* "$dir/include/"
ln -sfn "$dir/include/external/highwayhash/highwayhash" "$dir/include/highwayhash"
stand_in() {
    mkdir -p "$(dirname "$dir/include/$1")"
    rm -f "$dir/include/$1"
    { echo '#pragma once' && cat; } >"$dir/include/$1"
}
stand_in mlir/IR/BuiltinOps.h <<'END'
#include <string>
namespace llvm {
class raw_ostream {};
class raw_string_ostream : public raw_ostream {
public:
  explicit raw_string_ostream(std::string &) {}
  void flush() {}
};
} // namespace llvm
namespace mlir {
class MLIRContext {};
class ModuleOp {
public:
  void print(llvm::raw_ostream &) {}
  ModuleOp *operator->() { return this; }

private:
  void *state = nullptr;
};
template <class T> class OwningOpRef {
public:
  T *operator->() { return &op; }

private:
  T op;
};
} // namespace mlir
END
for header in mlir/IR/MLIRContext.h mlir/IR/OwningOpRef.h llvm/Support/raw_ostream.h; do
    stand_in $header <<<'#include "mlir/IR/BuiltinOps.h"'
done
stand_in xla/hlo/translate/stablehlo.h <<'END'
#include "absl/status/statusor.h"
#include "mlir/IR/BuiltinOps.h"
#include "xla/service/hlo.pb.h"
namespace xla {
inline absl::StatusOr<mlir::OwningOpRef<mlir::ModuleOp>>
ConvertHloToStablehlo(mlir::MLIRContext &, const HloModuleProto *) {
  return absl::UnimplementedError("this XLA comes without MLIR");
}
} // namespace xla
END
stand_in xla/pjrt/pjrt_api.h <<'END'
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "xla/pjrt/c/pjrt_c_api.h"
namespace pjrt {
inline absl::Status NoPlugins() {
  return absl::UnimplementedError("this XLA comes without the loading of plugins");
}
inline absl::StatusOr<const PJRT_Api *> PjrtApi(absl::string_view) { return NoPlugins(); }
inline absl::StatusOr<const PJRT_Api *> LoadPjrtPlugin(absl::string_view, absl::string_view) { return NoPlugins(); }
inline absl::StatusOr<bool> IsPjrtPluginInitialized(absl::string_view) { return NoPlugins(); }
inline absl::Status InitializePjrtPlugin(absl::string_view) { return NoPlugins(); }
} // namespace pjrt
END

libraries=(libtensorflow_cc.so.2 libtensorflow_framework.so.2)
for library in "${libraries[@]}"; do
    ln -sf "$wheel/$library" "$dir/lib/$library"
done
echo "INPUT(${libraries[*]/#/$dir/lib/})" >"$dir/lib/libxla_extension.so"

cat <<END
export XLA_EXTENSION_DIR='$dir'
export LD_LIBRARY_PATH='$dir/lib'
export CXXFLAGS='-I$dir/include/external/farmhash_archive/src -I$dir/include/external/com_github_grpc_grpc/include'
export LIBCLANG_PATH='$clang'
export BINDGEN_EXTRA_CLANG_ARGS='-I$(cc -print-file-name=include)'
END
