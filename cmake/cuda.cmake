# The CUDA backend: src/kernels/**/*.cu for sm_90a, and the sources of device and ops that call CUDA's API (cuda.cc, cuda_*.cc,
# cuda/*.cc). cudart is linked statically; driver calls come by entry point, cuBLASLt and CUPTI by dlopen, so that the program starts
# on a machine without CUDA.
set(CMAKE_CUDA_ARCHITECTURES 90a-real)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)
set(CMAKE_BUILD_RPATH "$ORIGIN")  # a bundle finds the libraries beside it
# CMake 3.25 does not know that nvcc 13 takes it.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
option(LAPIDARY_KERNEL_STRESS "blocks of kernels wait for random times: for tests/gpu/run.sh stress" OFF)
# ptxas reports spills, stack frames and serialised pipelines as info, exit 0: the launcher makes them errors. A wait costs
# prefill a register too many.
set(CMAKE_CUDA_COMPILER_LAUNCHER "")
if(NOT LAPIDARY_KERNEL_STRESS)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_SOURCE_DIR}/tools/checked_nvcc)
endif()
if(CCACHE)
  list(APPEND CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()
find_package(CUDAToolkit 13 REQUIRED)

function(lapidary_cuda)
  file(GLOB_RECURSE kernels CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernels/*.cu ${CMAKE_SOURCE_DIR}/src/kernels/*.cc)
  add_library(lapidary_kernels STATIC ${kernels})
  target_include_directories(lapidary_kernels PUBLIC ${CMAKE_SOURCE_DIR}/src)
  target_include_directories(lapidary_kernels SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  target_link_libraries(lapidary_kernels PUBLIC lapidary_base PRIVATE CUDA::cudart_static ${CMAKE_DL_LIBS})
  # The project's own flags are g++'s; -Wconversion would fire in the stubs nvcc writes.
  get_target_property(flags lapidary_kernels COMPILE_OPTIONS)
  set_property(TARGET lapidary_kernels PROPERTY COMPILE_OPTIONS
    "$<$<COMPILE_LANGUAGE:CXX>:${flags}>"
    "$<$<COMPILE_LANGUAGE:CUDA>:-Xptxas=-v;--compress-mode=size;--Werror=all-warnings;-lineinfo;-Xcompiler=-Wall,-Wextra,-Werror>")

  if(LAPIDARY_KERNEL_STRESS)
    target_compile_definitions(lapidary_kernels PRIVATE LAPIDARY_KERNEL_STRESS)
  endif()

  foreach(room device ops)
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${room}/cuda*.cc ${CMAKE_SOURCE_DIR}/src/${room}/cuda/*.cc)
    target_sources(lapidary_${room} PRIVATE ${sources})
  endforeach()
  foreach(source expert_tally gpu_ops timing)
    set_source_files_properties(${CMAKE_SOURCE_DIR}/src/ops/${source}.cc PROPERTIES COMPILE_DEFINITIONS LAPIDARY_CUDA)
  endforeach()
  set_source_files_properties(${CMAKE_SOURCE_DIR}/src/device/cuda.cc ${CMAKE_SOURCE_DIR}/src/device/cuda_trace.cc
    PROPERTIES COMPILE_OPTIONS "-isystem;${CUDAToolkit_INCLUDE_DIRS}")
  target_link_libraries(lapidary_device PRIVATE CUDA::cudart_static)
  target_link_libraries(lapidary_ops PUBLIC lapidary_kernels)
endfunction()
