#include "op_bench.h"

#include <algorithm>
#include <cstdio>

namespace lapidary {
BenchLine MeasureCase(OpCase& op_case, CudaDevice& device, Ops& ops, const Ceilings& ceilings) {
  Device& host = HostDevice();
  TensorSet made(host);
  op_case.Make(made);
  const int64_t copies = std::clamp<int64_t>(
      kRotatedBytes / std::max<int64_t>(made.num_bytes(), 1) + 1, 1, kBenchLaunches);
  std::vector<std::unique_ptr<TensorSet>> sets;
  for (int64_t i = 0; i < copies; ++i) sets.push_back(made.CopyTo(device));
  const double seconds = MedianSeconds(device, kBenchLaunches, [&](int i) {
    op_case.Run(ops, *sets[static_cast<size_t>(i) % sets.size()]);
  });
  BenchLine line;
  line.name = op_case.Name();
  line.us = seconds * 1e6;
  line.gb_per_s = static_cast<double>(op_case.Bytes()) / seconds * 1e-9;
  line.tflop_per_s = static_cast<double>(op_case.Flops()) / seconds * 1e-12;
  const double of_read = line.gb_per_s / ceilings.read_gb_per_s,
               of_flops = line.tflop_per_s / ceilings.tflop_per_s;
  line.compute_bound = of_flops > of_read;
  line.percent = 100 * std::max(of_read, of_flops);
  return line;
}

bool WriteRecord(const std::string& path, const std::string& device_name, const Ceilings& ceilings,
                 const std::vector<BenchLine>& lines) {
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) return false;
  fmt::print(file,
             "{{\"device\": \"{}\", \"read_gb_per_s\": {:.1f}, \"copy_gb_per_s\": {:.1f}, "
             "\"tflop_per_s\": {:.1f}, "
             "\"ops\": [\n",
             device_name, ceilings.read_gb_per_s, ceilings.copy_gb_per_s, ceilings.tflop_per_s);
  for (size_t i = 0; i < lines.size(); ++i)
    fmt::print(file,
               "{{\"name\": \"{}\", \"us\": {:.2f}, \"gb_per_s\": {:.1f}, \"tflop_per_s\": {:.2f}, "
               "\"percent\": {:.1f}, "
               "\"bound\": \"{}\"}}{}\n",
               lines[i].name, lines[i].us, lines[i].gb_per_s, lines[i].tflop_per_s,
               lines[i].percent, lines[i].compute_bound ? "compute" : "bytes",
               i + 1 < lines.size() ? "," : "");
  fmt::print(file, "]}}\n");
  return std::fclose(file) == 0;
}

}  // namespace lapidary
