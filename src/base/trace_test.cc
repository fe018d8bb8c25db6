#include "base/trace.h"

#include <gtest/gtest.h>

#include <thread>

namespace lapidary {
namespace {

class PlantedSource : public TraceSource {
 public:
  PlantedSource() { Trace::AddSource(this); }
  ~PlantedSource() override { Trace::RemoveSource(this); }
  void Start() override { ++num_starts; }
  std::vector<TraceEvent> Stop() override {
    return {{"kernel \"a\"", "GPU", start_ns, start_ns + 2500}};
  }
  int num_starts = 0;
  int64_t start_ns = 0;
};

TEST(Trace, HoldsSpansOfThreadsAndSources) {
  PlantedSource source;
  {
    const TraceSpan span("before");
  }
  ASSERT_TRUE(Trace::Start());
  EXPECT_FALSE(Trace::Start());
  EXPECT_EQ(source.num_starts, 1);
  {
    const TraceSpan outer("outer");
    source.start_ns = TraceNowNs();
    std::thread([] {
      Trace::NameThread("other");
      const TraceSpan span("inner");
    }).join();
  }
  const std::vector<TraceEvent> events = Trace::Stop();
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].name, "outer");
  EXPECT_EQ(events[1].track, "GPU");
  EXPECT_EQ(events[2].name, "inner");
  EXPECT_EQ(events[2].track, "other");
  EXPECT_LE(events[0].start_ns, events[2].start_ns);
  EXPECT_GE(events[0].end_ns, events[2].end_ns);
  EXPECT_TRUE(Trace::Stop().empty());
  {
    const TraceSpan span("after");
  }
  ASSERT_TRUE(Trace::Start());
  EXPECT_EQ(Trace::Stop().size(), 1u);  // the source's; "after" was before
}

TEST(Trace, WhatIsTooMuchIsCounted) {
  ASSERT_TRUE(Trace::Start());
  for (size_t i = 0; i < Trace::kMaxEvents + 5; ++i) Trace::Add("x", 1, 2);
  size_t num_dropped = 0;
  EXPECT_EQ(Trace::Stop(&num_dropped).size(), Trace::kMaxEvents);
  EXPECT_EQ(num_dropped, 5u);
}

TEST(Trace, ChromeReadsIt) {
  const std::vector<TraceEvent> events = {{"plan", "engine", 1000, 3500},
                                          {"k \"q\"", "GPU", 2000, 2750}};
  EXPECT_EQ(
      ChromeTrace(events),
      "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n"
      "{\"ph\":\"X\",\"pid\":1,\"tid\":1,\"name\":\"plan\",\"ts\":0.000,\"dur\":2.500},\n"
      "{\"ph\":\"X\",\"pid\":1,\"tid\":2,\"name\":\"k \\\"q\\\"\",\"ts\":1.000,\"dur\":0.750},"
      "\n{\"ph\":\"M\",\"pid\":1,\"tid\":2,\"name\":\"thread_name\",\"args\":{\"name\":\"GPU\"}"
      "},\n{\"ph\":\"M\",\"pid\":1,\"tid\":1,\"name\":\"thread_name\",\"args\":{\"name\":"
      "\"engine\"}}\n]}\n");
  EXPECT_EQ(ChromeTrace({}), "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n]}\n");
}

}  // namespace
}  // namespace lapidary
