// Embedding, norms, activations: one row at a time.
#include <algorithm>
#include <limits>

#include "ops/cpu/cpu_backend.h"
#include "ops/cpu/vector.h"

namespace lapidary::cpu {
namespace {

constexpr int64_t kRowGrain = 4;

}  // namespace

void CpuBackend::Embed(Tensor out, Tensor table, Tensor ids, float scale) {
  CHECK(out.rows() == ids.rows() && out.cols() == table.cols(), "embed [{},{}]", out.rows(),
        out.cols());
  std::vector<float> row, scaled(static_cast<size_t>(out.cols()));
  for (int64_t t = 0; t < ids.rows(); ++t) {
    const int32_t id = ids.i32()[t];
    CHECK(id < table.rows(), "token id {} of {}", id, table.rows());
    if (id < 0) {
      std::fill(scaled.begin(), scaled.end(), std::numeric_limits<float>::quiet_NaN());
      WriteRow(out, t, scaled.data(), out.cols());
      continue;
    }
    const float* source = ReadRow(table, id, row);
    for (size_t i = 0; i < scaled.size(); ++i) scaled[i] = source[i] * scale;
    WriteRow(out, t, scaled.data(), out.cols());
  }
}

void CpuBackend::ReplaceIds(Tensor out, Tensor ids, std::span<const int> from, int32_t to) {
  CHECK(out.rows() == ids.rows(), "{} ids for {}", ids.rows(), out.rows());
  for (int64_t t = 0; t < ids.rows(); ++t) {
    const int32_t id = ids.i32()[t];
    out.i32()[t] = std::find(from.begin(), from.end(), id) == from.end() ? id : to;
  }
}

void CpuBackend::RmsNorm(Tensor out, Tensor in, Tensor weight, float eps, int64_t group) {
  CHECK(group > 0 && in.cols() % group == 0 && out.cols() == in.cols() && out.rows() == in.rows(),
        "norm of [{},{}] by {}", in.rows(), in.cols(), group);
  CHECK(weight.empty() || weight.num_elements() == group, "norm weight {} for group {}",
        weight.num_elements(), group);
  const std::vector<float> w = weight.empty() ? std::vector<float>() : ToFloats(weight);
  pool_.ParallelFor(in.rows(), kRowGrain, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch, normed(static_cast<size_t>(in.cols()));
    for (int64_t t = begin; t < end; ++t) {
      const float* x = ReadRow(in, t, scratch);
      for (int64_t g = 0; g < in.cols(); g += group) {
        const auto sum = static_cast<float>(SumSquares(x + g, group));
        const float factor = 1.0f / std::sqrt(sum / static_cast<float>(group) + eps);
        float* y = normed.data() + g;
        if (w.empty())
          for (int64_t i = 0; i < group; ++i) y[i] = x[g + i] * factor;
        else
          for (int64_t i = 0; i < group; ++i) y[i] = x[g + i] * factor * w[static_cast<size_t>(i)];
      }
      WriteRow(out, t, normed.data(), in.cols());
    }
  });
}

void CpuBackend::AddScale(Tensor x, Tensor y, float scale) {
  CHECK(y.empty() || (x.rows() == y.rows() && x.cols() == y.cols()), "add [{},{}]", x.rows(),
        x.cols());
  std::vector<float> a, b, sum(static_cast<size_t>(x.cols()));
  for (int64_t t = 0; t < x.rows(); ++t) {
    const float* left = ReadRow(x, t, a);
    if (y.empty()) {
      for (size_t i = 0; i < sum.size(); ++i) sum[i] = left[i] * scale;
    } else {
      const float* right = ReadRow(y, t, b);
      for (size_t i = 0; i < sum.size(); ++i) sum[i] = (left[i] + right[i]) * scale;
    }
    WriteRow(x, t, sum.data(), x.cols());
  }
}

void CpuBackend::GeluMul(Tensor out, Tensor gate, Tensor up) {
  CHECK(gate.rows() == up.rows() && gate.cols() == up.cols() && out.cols() == up.cols(),
        "gelu [{},{}]", up.rows(), up.cols());
  pool_.ParallelFor(gate.rows(), 1, [&](int64_t begin, int64_t end) {
    std::vector<float> a, b, product(static_cast<size_t>(gate.cols()));
    for (int64_t t = begin; t < end; ++t) {
      const float* g = ReadRow(gate, t, a);
      const float* u = ReadRow(up, t, b);
      for (size_t i = 0; i < product.size(); ++i) product[i] = GeluTanh(g[i]) * u[i];
      WriteRow(out, t, product.data(), out.cols());
    }
  });
}

void CpuBackend::SoftCap(Tensor x, float cap) {
  pool_.ParallelFor(x.rows(), 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch, capped(static_cast<size_t>(x.cols()));
    for (int64_t t = begin; t < end; ++t) {
      const float* row = ReadRow(x, t, scratch);
      for (size_t i = 0; i < capped.size(); ++i) capped[i] = cap * Tanh(row[i] / cap);
      WriteRow(x, t, capped.data(), x.cols());
    }
  });
}

void CpuBackend::GatherRows(Tensor out, Tensor in, Tensor rows) {
  CHECK(out.rows() == rows.rows() && out.cols() == in.cols(), "gather {} rows", rows.rows());
  std::vector<float> scratch;
  for (int64_t i = 0; i < rows.rows(); ++i) {
    const int32_t row = rows.i32()[i];
    CHECK(row >= 0 && row < in.rows(), "row {} of {}", row, in.rows());
    WriteRow(out, i, ReadRow(in, row, scratch), in.cols());
  }
}

}  // namespace lapidary::cpu
