# A room is src/<name>: every .cc below it that is not a test, a fuzz target or a bench becomes lapidary_<name>.
# A file named *_avx2.cc or *_avx512.cc gets the flags of that instruction set; the choice is made at start. g++ 12 takes the
# "undefined" operands inside its own AVX-512 header for uninitialised variables.
set(LAPIDARY_ROOMS "")

function(lapidary_sources room out_sources)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${room}/*.cc)
  list(FILTER sources EXCLUDE REGEX "_(test|fuzz|bench)\\.cc$")
  # What needs CUDA's headers is added by cmake/cuda.cmake: cuda.cc, cuda_*.cc and everything below a folder cuda/.
  list(FILTER sources EXCLUDE REGEX "/cuda[^/]*\\.cc$|/cuda/")
  foreach(source ${sources})
    if(source MATCHES "_avx2\\.cc$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-O3")
    elseif(source MATCHES "_avx512\\.cc$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
        "-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx2;-mfma;-O3;-mprefer-vector-width=512;$<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>")
    endif()
  endforeach()
  set(${out_sources} ${sources} PARENT_SCOPE)
endfunction()

function(lapidary_room room)
  lapidary_sources(${room} sources)
  if(sources)
    add_library(lapidary_${room} STATIC ${sources})
    target_include_directories(lapidary_${room} PUBLIC ${CMAKE_SOURCE_DIR}/src)
    target_link_libraries(lapidary_${room} PUBLIC ${ARGN})
  else()
    add_library(lapidary_${room} INTERFACE)
    target_include_directories(lapidary_${room} INTERFACE ${CMAKE_SOURCE_DIR}/src)
    target_link_libraries(lapidary_${room} INTERFACE ${ARGN})
  endif()
  set(LAPIDARY_ROOMS ${LAPIDARY_ROOMS} ${room} PARENT_SCOPE)
endfunction()

# Files of one target compiled a few at a time, where most of the time goes into the headers that all of them include. A change
# still compiles one batch only. What a file keeps to itself has a name of its own in its room.
function(lapidary_unite target files)
  if(LAPIDARY_UNITE AND NOT CMAKE_UNITY_BUILD)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE ${files})
  endif()
endfunction()

# What only tests use is compiled with less effort: its speed is that of the rooms it calls.
function(lapidary_for_tests target)
  lapidary_unite(${target} 4)
  if(NOT LAPIDARY_SANITIZE)
    target_compile_options(${target} PRIVATE -O1 -g0)
  endif()
endfunction()

# The program, at <build>/lapidary; its library part lapidary_app is linked by tests of src/app.
function(lapidary_program room)
  lapidary_sources(${room} sources)
  list(FILTER sources EXCLUDE REGEX "/main\\.cc$")
  if(sources)
    set(commit ${CMAKE_BINARY_DIR}/commit.cc)
    add_custom_target(lapidary_commit BYPRODUCTS ${commit}
      COMMAND ${CMAKE_COMMAND} -DSOURCE_DIR=${CMAKE_SOURCE_DIR} -DOUTPUT=${commit} -P ${CMAKE_SOURCE_DIR}/cmake/commit.cmake)
    add_library(lapidary_${room} STATIC ${sources} ${commit})
    add_dependencies(lapidary_${room} lapidary_commit)
    # An HTTP client of Beast's templates takes as long as a batch.
    set_source_files_properties(${CMAKE_SOURCE_DIR}/src/${room}/bench/http_load.cc ${CMAKE_SOURCE_DIR}/src/${room}/chat/remote_partner.cc
      PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
    lapidary_unite(lapidary_${room} 4)
    target_include_directories(lapidary_${room} PUBLIC ${CMAKE_SOURCE_DIR}/src)
    target_link_libraries(lapidary_${room} PUBLIC ${ARGN})
    target_compile_definitions(lapidary_${room} PRIVATE LAPIDARY_VERSION="${PROJECT_VERSION}")
    add_executable(lapidary ${CMAKE_SOURCE_DIR}/src/${room}/main.cc)
    target_link_libraries(lapidary PRIVATE lapidary_${room})
    target_compile_definitions(lapidary PRIVATE LAPIDARY_VERSION="${PROJECT_VERSION}")
    set(LAPIDARY_ROOMS ${LAPIDARY_ROOMS} ${room} PARENT_SCOPE)
  endif()
endfunction()

# A test program and its place in ctest: lapidary_test(NAME SOURCES ... LIBRARIES ... [THREADS]). The program is NAME_test; its main is
# tests/support/test_main.cc. THREADS: it also runs under ThreadSanitizer (target threaded_tests, label "threads").
add_custom_target(threaded_tests)
function(lapidary_test name)
  cmake_parse_arguments(TEST "THREADS" "" "SOURCES;LIBRARIES" ${ARGN})
  if(NOT TARGET lapidary_test_main)
    add_library(lapidary_test_main STATIC ${CMAKE_SOURCE_DIR}/tests/support/test_main.cc)
    target_include_directories(lapidary_test_main PUBLIC ${CMAKE_SOURCE_DIR})
    target_link_libraries(lapidary_test_main PUBLIC GTest::gmock GTest::gtest)
  endif()
  add_executable(${name}_test ${TEST_SOURCES})
  lapidary_for_tests(${name}_test)
  target_link_libraries(${name}_test PRIVATE ${TEST_LIBRARIES} lapidary_test_main)
  target_compile_definitions(${name}_test PRIVATE
    LAPIDARY_SOURCE_DIR="${CMAKE_SOURCE_DIR}" LAPIDARY_BINARY_DIR="${CMAKE_BINARY_DIR}")
  add_test(NAME ${name} COMMAND ${name}_test --rounds-percent=${LAPIDARY_ROUNDS_PERCENT})
  # The tests are of the CPU's definition, several at a time, also where there is a GPU: tests/gpu/run.sh is its proof.
  set_tests_properties(${name} PROPERTIES ENVIRONMENT CUDA_VISIBLE_DEVICES=)
  if(TEST_THREADS)
    set_tests_properties(${name} PROPERTIES LABELS threads)
    add_dependencies(threaded_tests ${name}_test)
  endif()
endfunction()

# One test program a room, <room>_test, of the *_test.cc beside the sources.
function(lapidary_room_tests)
  set(threaded base engine server)
  foreach(room ${LAPIDARY_ROOMS})
    file(GLOB_RECURSE tests CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${room}/*_test.cc)
    if(NOT tests)
      continue()
    endif()
    set(threads "")
    if(room IN_LIST threaded)
      set(threads THREADS)
    endif()
    lapidary_test(${room} SOURCES ${tests} LIBRARIES lapidary_${room} ${threads})
  endforeach()
endfunction()

# One program a *_fuzz.cc beside the sources, with its corpus in tests/fuzz/corpus/<name>: a libFuzzer target (all of them: target fuzzers), or
# else a test that replays the corpus.
add_custom_target(fuzzers)
function(lapidary_fuzz_targets)
  foreach(room ${LAPIDARY_ROOMS})
    file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${room}/*_fuzz.cc)
    foreach(source ${sources})
      get_filename_component(name ${source} NAME_WE)
      add_executable(${name} ${source})
      target_link_libraries(${name} PRIVATE lapidary_${room})
      target_compile_definitions(${name} PRIVATE LAPIDARY_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
      add_dependencies(fuzzers ${name})
      if(LAPIDARY_FUZZ)
        target_link_options(${name} PRIVATE -fsanitize=fuzzer)
      else()
        if(NOT TARGET lapidary_replay_main)
          add_library(lapidary_replay_main STATIC ${CMAKE_SOURCE_DIR}/tests/support/replay_main.cc)
        endif()
        target_link_libraries(${name} PRIVATE lapidary_replay_main)
        add_test(NAME ${name} COMMAND ${name} ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/${name})
      endif()
    endforeach()
  endforeach()
endfunction()
