// The two products of a drawing step that torch does not do at the speed of memory on a
// processor with AVX-512: attention of a few queries over bf16 keys and values, and a few
// rows times int8 weights. `kernels.py` compiles and explains them.

#include <immintrin.h>
#include <torch/extension.h>

#include <cmath>
#include <optional>

using torch::Tensor;
using bf16 = c10::BFloat16;

namespace {

constexpr int WIDE = 16;           // floats in a register
constexpr int DIM = HEAD_DIM;      // of a head, known when this is compiled
constexpr int PARTS = DIM / WIDE;  // registers for one key
constexpr int BLOCK = 64;          // keys scored before their shares are summed up
constexpr float LEAST = -1e30f;

__m512 widen(const bf16* x) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

__m512 widen(const int8_t* x) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}

// softmax(q k^T) v over keys that come in pieces: Milakov and Gimelshein 2018, §3.
struct Attention {
  __m512 query[PARTS], found[PARTS];
  float most = LEAST, total = 0;

  explicit Attention(const bf16* q) {
    for (int part = 0; part < PARTS; part++) {
      const __m512 scale = _mm512_set1_ps(1 / std::sqrt(float(DIM)));
      query[part] = _mm512_mul_ps(scale, widen(q + part * WIDE));
      found[part] = _mm512_setzero_ps();
    }
  }

  void read(const bf16* keys, const bf16* values, int64_t count) {
    float shares[BLOCK];
    for (int64_t first = 0; first < count; first += BLOCK) {
      const int here = std::min<int64_t>(BLOCK, count - first);
      float largest = most;
      for (int i = 0; i < here; i++) {
        const bf16* key = keys + (first + i) * DIM;
        __m512 sum = _mm512_mul_ps(query[0], widen(key));
        for (int part = 1; part < PARTS; part++)
          sum = _mm512_fmadd_ps(query[part], widen(key + part * WIDE), sum);
        shares[i] = _mm512_reduce_add_ps(sum);
        largest = std::max(largest, shares[i]);
      }
      const float kept = std::exp(most - largest);
      total *= kept;
      most = largest;
      for (int i = 0; i < here; i++) shares[i] = std::exp(shares[i] - largest);
      for (int part = 0; part < PARTS; part++)
        found[part] = _mm512_mul_ps(found[part], _mm512_set1_ps(kept));
      for (int i = 0; i < here; i++) {
        const bf16* value = values + (first + i) * DIM;
        total += shares[i];
        for (int part = 0; part < PARTS; part++)
          found[part] = _mm512_fmadd_ps(
              _mm512_set1_ps(shares[i]), widen(value + part * WIDE), found[part]);
      }
    }
  }

  void write(bf16* out) const {
    float row[WIDE];
    for (int part = 0; part < PARTS; part++) {
      _mm512_storeu_ps(row, _mm512_div_ps(found[part], _mm512_set1_ps(total)));
      for (int i = 0; i < WIDE; i++) out[part * WIDE + i] = row[i];
    }
  }
};

template <int ROWS, int OUTS>
void multiply(const float* x, const int8_t* weight, const bf16* scales, bf16* y,
              int64_t inner, int64_t outs) {
  at::parallel_for(0, outs / OUTS, 4, [&](int64_t from, int64_t to) {
    for (int64_t out = OUTS * from; out < OUTS * to; out += OUTS) {
      const int8_t* w = weight + out * inner;
      __m512 sums[ROWS][OUTS];
      for (auto& row : sums)
        for (auto& sum : row) sum = _mm512_setzero_ps();
      for (int64_t k = 0; k < inner; k += WIDE) {
        __m512 wide[OUTS];
        for (int j = 0; j < OUTS; j++) {
          wide[j] = widen(w + j * inner + k);
          if (k % 64 == 0)  // a line of the outputs after these
            _mm_prefetch(reinterpret_cast<const char*>(w + (j + OUTS) * inner + k),
                         _MM_HINT_T0);
        }
        for (int row = 0; row < ROWS; row++) {
          const __m512 part = _mm512_loadu_ps(x + row * inner + k);
          for (int j = 0; j < OUTS; j++)
            sums[row][j] = _mm512_fmadd_ps(part, wide[j], sums[row][j]);
        }
      }
      for (int row = 0; row < ROWS; row++)
        for (int j = 0; j < OUTS; j++)
          y[row * outs + out + j] =
              _mm512_reduce_add_ps(sums[row][j]) * float(scales[out + j]);
    }
  });
}

}  // namespace

// Stores new keys and values of each lane behind its `lengths`, then attends to the
// prefix of its group and to its own ids up to each query.
// q, k, v: batch heads time dim, the last without gaps; keys, values: batch heads capacity
// dim; prefix_*: the same of each group, with as many lanes to each. All bf16.
// Gives batch time heads dim.
Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& keys,
              const Tensor& values, const Tensor& lengths,
              const std::optional<Tensor>& prefix_keys,
              const std::optional<Tensor>& prefix_values,
              const std::optional<Tensor>& prefix_lengths) {
  const int64_t batch = q.size(0), heads = q.size(1), time = q.size(2);
  const int64_t groups = prefix_keys ? prefix_lengths->size(0) : batch;
  const int64_t lanes = batch / groups;
  Tensor out = torch::empty({batch, time, heads, DIM}, q.options());
  const auto at = [](const Tensor& x, int64_t row, int64_t head, int64_t id) {
    return x.data_ptr<bf16>() + row * x.stride(0) + head * x.stride(1) + id * x.stride(2);
  };
  const int64_t* read = lengths.data_ptr<int64_t>();
  at::parallel_for(0, batch * heads, 1, [&](int64_t from, int64_t to) {
    for (int64_t task = from; task < to; task++) {  // lanes of a group one after another
      const int64_t group = task / (heads * lanes), head = task / lanes % heads;
      const int64_t lane = group * lanes + task % lanes;
      for (int64_t i = 0; i < time; i++) {
        std::copy_n(at(k, lane, head, i), DIM, at(keys, lane, head, read[lane] + i));
        std::copy_n(at(v, lane, head, i), DIM, at(values, lane, head, read[lane] + i));
      }
      for (int64_t i = 0; i < time; i++) {
        Attention attention(at(q, lane, head, i));
        if (prefix_keys)
          attention.read(at(*prefix_keys, group, head, 0),
                         at(*prefix_values, group, head, 0),
                         prefix_lengths->data_ptr<int64_t>()[group]);
        attention.read(at(keys, lane, head, 0), at(values, lane, head, 0),
                       read[lane] + i + 1);
        attention.write(at(out, lane, i, head));
      }
    }
  });
  return out;
}

// x: rows inner, weight: outs inner, inner a multiple of 64 and outs of 4.
Tensor int8_linear(const Tensor& x, const Tensor& weight, const Tensor& scales) {
  const int64_t rows = x.size(0), inner = x.size(1), outs = weight.size(0);
  const Tensor wide = x.to(torch::kFloat).contiguous();
  Tensor out = torch::empty({rows, outs}, x.options());
  for (int64_t row = 0; row < rows; row += 8) {
    const auto some = [&](auto multiply) {
      multiply(wide.data_ptr<float>() + row * inner, weight.data_ptr<int8_t>(),
               scales.data_ptr<bf16>(), out.data_ptr<bf16>() + row * outs, inner, outs);
    };
    switch (std::min<int64_t>(8, rows - row)) {
      case 1: some(multiply<1, 4>); break;
      case 2: some(multiply<2, 4>); break;
      case 3: some(multiply<3, 4>); break;
      case 4: some(multiply<4, 4>); break;
      case 5: some(multiply<5, 2>); break;
      case 6: some(multiply<6, 2>); break;
      case 7: some(multiply<7, 2>); break;
      default: some(multiply<8, 2>);
    }
  }
  return out;
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  module.def("attend", &attend);
  module.def("int8_linear", &int8_linear);
}
