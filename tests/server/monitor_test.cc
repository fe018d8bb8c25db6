// What dashboards, routers and operators ask: metrics, load, facts, flush, abort, health.
#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "server/monitor/metered_engine.h"
#include "tests/server/api_server_fixture.h"
#include "tests/server/metrics_page.h"

namespace lapidary {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kEndless = R"({"prompt":"a b","ignore_eos":true,"rid":"r1"})";

int64_t NowMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

class MonitorTest : public ApiServerTest {
 protected:
  MetricsPage Page() {
    const std::string reply = Get("/metrics");
    EXPECT_EQ(StatusOf(reply), 200);
    EXPECT_THAT(reply, HasSubstr("Content-Type: text/plain; version=0.0.4"));
    MetricsPage page = ParseMetrics(reply.substr(reply.find("\r\n\r\n") + 4));
    EXPECT_EQ(page.error, "");
    return page;
  }
  std::string PostWith(const std::string& path, const std::string& body, const std::string& key) {
    return Raw(Message("POST", path, body, "Authorization: Bearer " + key + "\r\n"));
  }
  // Sends a request that nothing answers until it is cancelled.
  tcp::socket Begin(const std::string& body, const std::string& headers = "") {
    tcp::socket socket = Connect();
    boost::asio::write(socket,
                       boost::asio::buffer(Message("POST", "/v1/completions", body, headers)));
    for (int i = 0; i < 500 && server_->num_live() == 0; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return socket;
  }
};

TEST_F(MonitorTest, StatsUnderBothFamiliesOfNames) {
  EngineStats stats;
  stats.num_running = 3, stats.num_queued = 2, stats.max_running_requests = 6;
  stats.last_progress_ms = NowMs();
  stats.prompt_tokens = 1000, stats.generated_tokens = 500;
  stats.total_slabs = 100, stats.used_slabs = 40, stats.used_full_slabs = 10;
  stats.full_pages = 30, stats.sliding_pages = 50, stats.max_total_tokens = 6400;
  stats.cache_queries = 1000, stats.cache_hits = 250;
  stats.num_bursts = 10, stats.drafted_tokens = 40, stats.accepted_tokens = 15;
  stats.accepted_by_place = {9, 4, 2};
  stats.preemptions = 4, stats.nonfinite_rows = 1;
  engine_->SetStats(stats);
  const MetricsPage page = Page();
  const std::string v = R"({model_name="pebble",engine="0"})", s = R"({model_name="pebble"})";
  const std::map<std::string, double> expected = {
      {"vllm:num_requests_running" + v, 3},
      {"vllm:num_requests_waiting" + v, 2},
      {"sglang:num_running_reqs" + s, 3},
      {"sglang:num_queue_reqs" + s, 2},
      {"vllm:kv_cache_usage_perc" + v, 0.4},
      {"vllm:gpu_cache_usage_perc" + v, 0.4},
      {"sglang:token_usage" + s, 0.1},
      {"sglang:swa_token_usage" + s, 0.3},
      {"sglang:num_used_tokens" + s, 1920},
      {"sglang:max_total_num_tokens" + s, 6400},
      {"vllm:prompt_tokens_total" + v, 1000},
      {"sglang:generation_tokens_total" + s, 500},
      {"sglang:cache_hit_rate" + s, 0.25},
      {"vllm:prefix_cache_hits_total" + v, 250},
      {"vllm:spec_decode_num_drafts_total" + v, 10},
      {"sglang:spec_accept_length" + s, 2.5},
      {"sglang:spec_accept_rate" + s, 0.375},
      {"vllm:num_preemptions_total" + v, 4},
      {"sglang:num_retracted_requests_total" + s, 4},
      {"sglang:utilization" + s, 0.5},
      {R"(vllm:spec_decode_num_accepted_tokens_per_pos_total{model_name="pebble",engine="0",position="1"})",
       4},
      {R"(vllm:cache_config_info{model_name="pebble",engine="0",block_size="64",num_gpu_blocks="100"})",
       1}};
  for (const auto& [sample, value] : expected) {
    ASSERT_TRUE(page.Has(sample)) << sample;
    EXPECT_DOUBLE_EQ(page.samples.at(sample), value) << sample;
  }
  EXPECT_TRUE(page.Has("process_resident_memory_bytes"));
}

TEST_F(MonitorTest, RequestsAreCountedAsTheirEventsPass) {
  engine_->script = tokenizer_->Encode("123456");
  engine_->step_tokens = 3;
  int64_t now = 1'000'000;
  engine_->edit = [&](TokenEvent& event) {
    now += 30'000;  // 30 ms a step
    event.times = {1'000'000, 1'010'000, 1'030'000, now};
  };
  EXPECT_EQ(StatusOf(Post("/v1/completions", R"({"prompt":[5,6,7],"max_tokens":9})")), 200);
  now = 1'000'000;
  engine_->endless = true;
  EXPECT_EQ(StatusOf(Post("/v1/completions", R"({"prompt":[5,6],"stop":"5"})")), 200);
  EXPECT_EQ(StatusOf(Post("/v1/completions", R"({"prompt":[]})")), 400);
  EXPECT_EQ(StatusOf(Get("/some/path")), 404);
  const MetricsPage page = Page();
  const std::string v = R"(model_name="pebble",engine="0")", s = R"({model_name="pebble"})";
  const auto of = [&](const std::string& sample) {
    EXPECT_TRUE(page.Has(sample)) << sample;
    return page.samples.contains(sample) ? page.samples.at(sample) : -1;
  };
  EXPECT_EQ(of("vllm:request_success_total{" + v + ",finished_reason=\"stop\"}"), 2);
  EXPECT_EQ(of("vllm:time_to_first_token_seconds_count{" + v + "}"), 2);
  EXPECT_EQ(of("vllm:time_to_first_token_seconds_bucket{" + v + ",le=\"0.02\"}"), 0);
  EXPECT_EQ(of("vllm:time_to_first_token_seconds_bucket{" + v + ",le=\"0.04\"}"), 2);
  EXPECT_DOUBLE_EQ(of("sglang:time_to_first_token_seconds_sum" + s), 0.06);
  EXPECT_EQ(of("sglang:inter_token_latency_seconds_count" + s), 2);
  EXPECT_DOUBLE_EQ(of("vllm:inter_token_latency_seconds_sum{" + v + "}"), 0.06);
  EXPECT_DOUBLE_EQ(of("sglang:queue_time_seconds_sum" + s), 0.02);
  EXPECT_DOUBLE_EQ(of("vllm:e2e_request_latency_seconds_sum{" + v + "}"), 0.12);
  EXPECT_EQ(of("vllm:request_prompt_tokens_sum{" + v + "}"), 5);
  EXPECT_EQ(of("sglang:num_requests_total" + s), 2);
  const std::string route =
      R"(http_requests_total{handler="/v1/completions",method="POST",status=")";
  EXPECT_EQ(of(route + "200\"}"), 2);
  EXPECT_EQ(of(route + "400\"}"), 1);
  EXPECT_EQ(of(R"(http_requests_total{handler="none",method="GET",status="404"})"), 1);
}

// The bounds are vLLM's, whose quantiles ours must line up with.
TEST_F(MonitorTest, Buckets) {
  const MetricsPage page = Page();
  const auto bounds = [&](const std::string& name) {
    int count = 0;
    for (const auto& [sample, value] : page.samples)
      count += sample.starts_with(name + "_bucket") ? 1 : 0;
    return count;
  };
  EXPECT_EQ(bounds("vllm:time_to_first_token_seconds"), 23);
  EXPECT_EQ(bounds("sglang:inter_token_latency_seconds"), 20);
  EXPECT_EQ(bounds("vllm:e2e_request_latency_seconds"), 22);
  for (const char* bound : {"0.001", "1.0", "2560.0", "+Inf"})
    EXPECT_TRUE(
        page.Has(R"(vllm:time_to_first_token_seconds_bucket{model_name="pebble",engine="0",le=")" +
                 std::string(bound) + "\"}"))
        << bound;
}

TEST_F(MonitorTest, LoadAndFacts) {
  EngineStats stats;
  stats.num_running = 3, stats.num_queued = 2, stats.max_running_requests = 6;
  stats.full_pages = 2, stats.max_total_tokens = 6400;
  stats.num_bursts = 4, stats.accepted_tokens = 6;
  engine_->SetStats(stats);
  EXPECT_EQ(BodyOf(Get("/load")).at("server_load").to_number<int>(), 0);
  const json::object loads = BodyOf(Get("/v1/loads"));
  const json::value& load = loads.at("loads").at(0);
  EXPECT_EQ(load.at("num_running_reqs").to_number<int>(), 3);
  EXPECT_EQ(load.at("num_waiting_reqs").to_number<int>(), 2);
  EXPECT_EQ(load.at("num_used_tokens").to_number<int>(), 128);
  EXPECT_EQ(load.at("utilization").to_number<double>(), 0.5);
  EXPECT_THAT(Get("/get_load"), HasSubstr(R"([{"dp_rank":0,"num_reqs":5,"num_waiting_reqs":2,)"));
  for (const char* path : {"/server_info", "/get_server_info"}) {
    const json::object info = BodyOf(Get(path));
    EXPECT_EQ(info.at("internal_states").at(0).at("avg_spec_accept_length").to_number<double>(),
              2.5);
    EXPECT_EQ(info.at("max_total_num_tokens").to_number<int>(), 6400);
    // SGLang's bench takes a server with these keys for a disaggregated one.
    EXPECT_FALSE(info.contains("decode") || info.contains("prefill"));
  }
  for (const char* path : {"/model_info", "/get_model_info"})
    EXPECT_TRUE(BodyOf(Get(path)).at("is_generation").as_bool());
}

TEST_F(MonitorTest, FlushResetsTheAcceptLength) {
  EngineStats stats;
  stats.num_bursts = 4, stats.accepted_tokens = 6;
  engine_->SetStats(stats);
  for (const std::string& reply : {Post("/flush_cache?timeout=60", ""), Get("/flush_cache"),
                                   Post("/reset_prefix_cache", "")}) {
    EXPECT_EQ(StatusOf(reply), 200) << reply;
    EXPECT_EQ(BodyOf(reply).at("flushed_pages").to_number<int>(), 7);
    EXPECT_TRUE(BodyOf(reply).at("was_idle").as_bool());
  }
  EXPECT_EQ(engine_->num_flushes, 3);
  EXPECT_EQ(BodyOf(Get("/server_info"))
                .at("internal_states")
                .at(0)
                .at("avg_spec_accept_length")
                .to_number<double>(),
            1.0);
  EXPECT_EQ(StatusOf(Post("/flush_cache?timeout=-1", "")), 400);
  EXPECT_EQ(StatusOf(Post("/flush_cache?timeout=soon", "")), 400);
  EXPECT_EQ(StatusOf(Get("/reset_prefix_cache")), 405);
}

TEST_F(MonitorTest, FlushWaitsForIdleAndNoLonger) {
  EngineStats stats;
  stats.num_running = 1;
  engine_->SetStats(stats);
  const auto start = std::chrono::steady_clock::now();
  const std::string reply = Post("/flush_cache?timeout=1", "");
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
  EXPECT_FALSE(BodyOf(reply).at("was_idle").as_bool());
}

TEST_F(MonitorTest, AbortByIdEndsTheRequest) {
  tcp::socket socket = Begin(kEndless);
  EXPECT_THAT(Post("/abort_request", R"({"rid":"other"})"), HasSubstr("\"num_aborted\":0"));
  EXPECT_THAT(Post("/abort_request", R"({"rid":"r1"})"), HasSubstr("\"num_aborted\":1"));
  for (int i = 0; i < 500 && engine_->num_cancelled == 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(engine_->num_cancelled, 1);
  EXPECT_THAT(ReadAll(socket), HasSubstr("\"finish_reason\":\"abort\""));
  EXPECT_EQ(StatusOf(Post("/abort_request", "{}")), 400);
  EXPECT_EQ(StatusOf(Post("/abort_request", R"({"abort_all":1})")), 400);
}

TEST_F(MonitorTest, ALiveRequestsIdIsItsOwn) {
  tcp::socket socket = Begin(kEndless);
  const std::string again = Post("/v1/completions", kEndless);
  EXPECT_EQ(StatusOf(again), 400);
  EXPECT_THAT(again, HasSubstr("\"param\":\"request_id\""));
  EXPECT_EQ(StatusOf(Post("/v1/completions", R"({"prompt":"a b","rid":"r2"})")), 200);
  EXPECT_THAT(Post("/abort_request", R"({"rid":"r1"})"), HasSubstr("\"num_aborted\":1"));
  ReadAll(socket);
  for (int i = 0; i < 500 && server_->num_live() > 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(StatusOf(Post("/v1/completions", R"({"prompt":"a b","rid":"r1"})")), 200);
}

TEST_F(MonitorTest, AnIdIsEchoedOrRefused) {
  const auto reply = [this](const std::string& body, const std::string& headers) {
    return Raw(Message("POST", "/v1/completions", body, headers));
  };
  EXPECT_THAT(reply(R"({"prompt":"a b","request_id":"A.b_c:d-9"})", ""),
              HasSubstr("X-Request-Id: A.b_c:d-9\r\n"));
  EXPECT_THAT(reply(R"({"prompt":"a b"})", "X-Request-Id: gate-1\r\n"),
              HasSubstr("\"id\":\"gate-1\""));
  EXPECT_THAT(reply(R"({"prompt":"a b"})", "X-Request-Id: a/b\r\n"), HasSubstr("\"id\":\"cmpl-"));
  for (const char* id : {R"(a\r\nX-Injected: 1)", "a b", "\xc3\xa9", "a/b"}) {
    const std::string refused =
        reply(R"({"prompt":"a b","request_id":")" + std::string(id) + "\"}", "");
    EXPECT_EQ(StatusOf(refused), 400) << id;
    EXPECT_THAT(refused, HasSubstr("\"param\":\"request_id\"")) << id;
  }
}

TEST(RetryAfter, FollowsTheRateOfEnds) {
  const auto scripted = std::make_shared<ScriptedEngine>(10);
  scripted->script = {1};
  MeteredEngine engine(scripted, std::make_shared<RequestMetrics>());
  EngineStats stats;
  stats.num_queued = 200;
  scripted->SetStats(stats);
  EXPECT_EQ(engine.retry_after_s(), 1);  // nothing is known
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  for (uint64_t id = 1; id <= 3; ++id) {
    Request request;
    request.id = id;
    request.prompt = {1, 2};
    ASSERT_TRUE(engine.Submit(request, [](TokenEvent&&) {}).ok());
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  // At least 150 ms for 3 ends: 50 ms each, 10 s for 200.
  EXPECT_GE(engine.retry_after_s(), 10);
  EXPECT_LE(engine.retry_after_s(), 60);
  stats.num_queued = 0;
  scripted->SetStats(stats);
  EXPECT_EQ(engine.retry_after_s(), 1);
  stats.num_queued = 1 << 20;
  scripted->SetStats(stats);
  EXPECT_EQ(engine.retry_after_s(), 60);
}

class TwoKeys : public MonitorTest {
  void Configure(ApiOptions& options) override {
    options.api_keys = {"one", "two"};
    options.admin_api_key = "admin";
    options.metrics_need_key = true;
  }
};
TEST_F(TwoKeys, ACallerAbortsItsOwn) {
  tcp::socket socket = Begin(kEndless, "x-api-key: one\r\n");
  EXPECT_THAT(PostWith("/abort_request", R"({"rid":"r1"})", "two"), HasSubstr("\"num_aborted\":0"));
  EXPECT_EQ(StatusOf(PostWith("/abort_request", R"({"abort_all":true})", "one")), 403);
  EXPECT_THAT(PostWith("/abort_request", R"({"rid":"r1"})", "one"), HasSubstr("\"num_aborted\":1"));
  EXPECT_THAT(ReadAll(socket), HasSubstr("\"finish_reason\":\"abort\""));
}
TEST_F(TwoKeys, AdminRoutesNeedTheAdminsKey) {
  for (const char* path : {"/flush_cache", "/reset_prefix_cache"}) {
    EXPECT_EQ(StatusOf(PostWith(path, "", "one")), 401);
    EXPECT_EQ(StatusOf(Post(path, "")), 401);
    EXPECT_EQ(StatusOf(PostWith(path, "", "admin")), 200);
  }
  EXPECT_EQ(StatusOf(Get("/metrics")), 401);
  EXPECT_EQ(StatusOf(Raw(Message("GET", "/metrics", "", "x-api-key: two\r\n"))), 200);
}

TEST_F(MonitorTest, HealthGenerateAsksAnIdleEngine) {
  engine_->script = {7};
  EXPECT_EQ(StatusOf(Get("/health_generate")), 200);
  EXPECT_EQ(engine_->last_request().max_tokens, 1);
  EngineStats stats;
  stats.num_running = 1;  // busy, and silent since long ago
  engine_->SetStats(stats);
  EXPECT_EQ(StatusOf(Get("/health_generate")), 503);
}

// The engine falls silent with work at hand; within 5 s the probes know.
TEST_F(MonitorTest, AStallTurnsHealthInTime) {
  EngineStats stats;
  stats.num_running = 1;
  stats.last_progress_ms = NowMs();
  engine_->SetStats(stats);
  EXPECT_EQ(StatusOf(Get("/health")), 200);
  const auto start = std::chrono::steady_clock::now();
  std::string reply;
  do {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    reply = Get("/health");
  } while (StatusOf(reply) == 200 &&
           std::chrono::steady_clock::now() - start < std::chrono::seconds(5));
  const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(StatusOf(reply), 503);
  fmt::print("GOAL G27 {:.2f} 5.00 {}   s from a planted stall to 503\n", waited.count(),
             waited.count() <= 5 ? "PASS" : "FAIL");
  EXPECT_THAT(reply, HasSubstr("\"status\":\"stalled\""));
  EXPECT_EQ(StatusOf(Get("/live")), 200);
  stats.last_progress_ms = NowMs();
  engine_->SetStats(stats);
  EXPECT_EQ(StatusOf(Get("/health")), 200);
}

}  // namespace
}  // namespace lapidary
