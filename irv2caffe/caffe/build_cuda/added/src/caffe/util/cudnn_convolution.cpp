#ifdef USE_CUDNN
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>  // NOLINT(build/c++11)
#include <vector>

#include "caffe/util/cudnn_convolution.hpp"

namespace caffe {
namespace cudnn {

namespace {

// A handle and its workspace on one device.
struct Shared {
  cudnnHandle_t handle;
  void* data;
  size_t size;

  // Returns memory of at least this size, or NULL if there is too little.
  void* Reserve(size_t wanted) {
    if (wanted <= size) { return data; }
    cudaFree(data);  // waits for what still uses it
    data = NULL;
    size = 0;
    if (cudaMalloc(&data, wanted) != cudaSuccess) {
      cudaGetLastError();  // forgets the error
      data = NULL;
      return NULL;
    }
    size = wanted;
    return data;
  }
};

// What no thread uses. Never destroyed: when a process ends, CUDA may be gone
// before static objects are.
struct Pool {
  std::mutex mutex;
  std::map<int, std::vector<Shared*> > unused;

  static Pool* Get() {
    static Pool* pool = new Pool;
    return pool;
  }
};

// What the calling thread uses; another thread gets it when this one ends.
class Lease {
 public:
  ~Lease() {
    Pool* pool = Pool::Get();
    std::lock_guard<std::mutex> guard(pool->mutex);
    for (std::map<int, Shared*>::iterator it = held_.begin();
         it != held_.end(); ++it) {
      pool->unused[it->first].push_back(it->second);
    }
  }

  Shared* Get() {
    int device;
    CUDA_CHECK(cudaGetDevice(&device));
    Shared*& shared = held_[device];
    if (shared == NULL) { shared = Take(device); }
    return shared;
  }

 private:
  static Shared* Take(int device) {
    Pool* pool = Pool::Get();
    std::lock_guard<std::mutex> guard(pool->mutex);
    std::vector<Shared*>& unused = pool->unused[device];
    if (!unused.empty()) {
      Shared* shared = unused.back();
      unused.pop_back();
      return shared;
    }
    Shared* shared = new Shared();
    CUDNN_CHECK(cudnnCreate(&shared->handle));
    return shared;
  }

  std::map<int, Shared*> held_;
};

Shared* GetShared() {
  static thread_local Lease lease;
  return lease.Get();
}

size_t WorkspaceLimit() {
  const char* told = std::getenv("CAFFE_CUDNN_WORKSPACE_MB");
  const int megabytes = told ? std::atoi(told) : 256;
  return static_cast<size_t>(std::max(megabytes, 0)) << 20;
}

// Double has no choice to make: TF32 is for float.
template <typename Dtype>
bool OnlyFloat() {
  const char* told = std::getenv("CAFFE_TF32");
  const bool tf32 = told != NULL && std::strcmp(told, "1") == 0;
  return dataType<Dtype>::type == CUDNN_DATA_FLOAT && !tf32;
}

// Takes the first algorithm, which is the fastest, whose workspace is within
// the limit; else the one with the smallest.
template <typename Dtype, typename Algo, typename Perf, typename Size>
void Take(const Perf* found, int count, size_t limit, const Size& size_of,
    Pass<Algo>* pass) {
  int best = -1;
  for (int i = 0; i < count && !(best >= 0 && pass->size <= limit); ++i) {
    if (found[i].status != CUDNN_STATUS_SUCCESS) { continue; }
    if (!OnlyFloat<Dtype>()) {
      CUDNN_CHECK(cudnnSetConvolutionMathType(pass->desc, found[i].mathType));
    }
    size_t size;
    if (size_of(found[i].algo, &size) != CUDNN_STATUS_SUCCESS) { continue; }
    if (best < 0 || size < pass->size) {
      best = i;
      pass->algo = found[i].algo;
      pass->size = size;
    }
  }
  CHECK_GE(best, 0) << "cuDNN has no algorithm for this convolution. "
      << "Use 'engine: CAFFE' for it.";
  if (!OnlyFloat<Dtype>()) {
    CUDNN_CHECK(cudnnSetConvolutionMathType(pass->desc, found[best].mathType));
  }
  pass->chosen = true;
}

// Chooses an algorithm if there is none yet, and returns its workspace.
template <typename Algo, typename Choose>
void* Prepare(Pass<Algo>* pass, const Choose& choose) {
  if (!pass->chosen) { choose(WorkspaceLimit()); }
  Shared* shared = GetShared();
  void* space = shared->Reserve(pass->size);
  if (space == NULL && pass->size > 0) {
    LOG(WARNING) << "No " << pass->size << " bytes of GPU memory for cuDNN; "
        << "a slower algorithm is used.";
    choose(0);
    space = shared->Reserve(pass->size);
    CHECK(space != NULL || pass->size == 0) << "out of memory";
  }
  return space;
}

}  // namespace

cudnnHandle_t Handle() { return GetShared()->handle; }

template <typename Dtype>
Convolution<Dtype>::Convolution()
    : shape_(), x_(NULL), y_(NULL), x_bias_(NULL), y_bias_(NULL),
      filter_(NULL) {}

template <typename Dtype>
Convolution<Dtype>::~Convolution() {
  if (filter_ == NULL) { return; }
  cudnnTensorDescriptor_t tensors[] = {x_, y_, x_bias_, y_bias_};
  for (int i = 0; i < 4; ++i) { cudnnDestroyTensorDescriptor(tensors[i]); }
  cudnnDestroyFilterDescriptor(filter_);
  cudnnDestroyConvolutionDescriptor(forward_.desc);
  cudnnDestroyConvolutionDescriptor(data_.desc);
  cudnnDestroyConvolutionDescriptor(weights_.desc);
}

template <typename Dtype>
void Convolution<Dtype>::Create() {
  createTensor4dDesc<Dtype>(&x_);
  createTensor4dDesc<Dtype>(&y_);
  createTensor4dDesc<Dtype>(&x_bias_);
  createTensor4dDesc<Dtype>(&y_bias_);
  CUDNN_CHECK(cudnnCreateFilterDescriptor(&filter_));
  createConvolutionDesc<Dtype>(&forward_.desc);
  createConvolutionDesc<Dtype>(&data_.desc);
  createConvolutionDesc<Dtype>(&weights_.desc);
}

template <typename Dtype>
void Convolution<Dtype>::SetShape(const ConvolutionShape& s) {
  if (filter_ == NULL) {
    Create();
  } else if (std::memcmp(&s, &shape_, sizeof(s)) == 0) {
    return;
  }
  shape_ = s;
  setTensor4dDesc<Dtype>(&x_, s.num, s.channels, s.height, s.width);
  setTensor4dDesc<Dtype>(&y_, s.num, s.num_output, s.height_out, s.width_out);
  setTensor4dDesc<Dtype>(&x_bias_, 1, s.channels, 1, 1);
  setTensor4dDesc<Dtype>(&y_bias_, 1, s.num_output, 1, 1);
  CUDNN_CHECK(cudnnSetFilter4dDescriptor(filter_, dataType<Dtype>::type,
      CUDNN_TENSOR_NCHW, s.num_output, s.channels / s.group, s.kernel[0],
      s.kernel[1]));
  cudnnConvolutionDescriptor_t descs[] =
      {forward_.desc, data_.desc, weights_.desc};
  for (int i = 0; i < 3; ++i) {
    CUDNN_CHECK(cudnnSetConvolution2dDescriptor(descs[i], s.pad[0], s.pad[1],
        s.stride[0], s.stride[1], s.dilation[0], s.dilation[1],
        CUDNN_CROSS_CORRELATION, dataType<Dtype>::type));
    CUDNN_CHECK(cudnnSetConvolutionGroupCount(descs[i], s.group));
    CUDNN_CHECK(cudnnSetConvolutionMathType(descs[i],
        OnlyFloat<Dtype>() ? CUDNN_FMA_MATH : CUDNN_DEFAULT_MATH));
  }
  forward_.chosen = data_.chosen = weights_.chosen = false;
}

template <typename Dtype>
void Convolution<Dtype>::Forward(const Dtype* x, const Dtype* filter,
    Dtype* y) {
  void* space = Prepare(&forward_, [this](size_t limit) {
    int count = 0;
    cudnnConvolutionFwdAlgoPerf_t found[CUDNN_CONVOLUTION_FWD_ALGO_COUNT];
    CUDNN_CHECK(cudnnGetConvolutionForwardAlgorithm_v7(Handle(), x_, filter_,
        forward_.desc, y_, CUDNN_CONVOLUTION_FWD_ALGO_COUNT, &count, found));
    Take<Dtype>(found, count, limit,
        [this](cudnnConvolutionFwdAlgo_t algo, size_t* size) {
          return cudnnGetConvolutionForwardWorkspaceSize(Handle(), x_, filter_,
              forward_.desc, y_, algo, size);
        }, &forward_);
  });
  CUDNN_CHECK(cudnnConvolutionForward(Handle(), dataType<Dtype>::one, x_, x,
      filter_, filter, forward_.desc, forward_.algo, space, forward_.size,
      dataType<Dtype>::zero, y_, y));
}

template <typename Dtype>
void Convolution<Dtype>::BackwardData(const Dtype* y, const Dtype* filter,
    Dtype* x) {
  void* space = Prepare(&data_, [this](size_t limit) {
    int count = 0;
    cudnnConvolutionBwdDataAlgoPerf_t
        found[CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT];
    CUDNN_CHECK(cudnnGetConvolutionBackwardDataAlgorithm_v7(Handle(), filter_,
        y_, data_.desc, x_, CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT, &count,
        found));
    Take<Dtype>(found, count, limit,
        [this](cudnnConvolutionBwdDataAlgo_t algo, size_t* size) {
          return cudnnGetConvolutionBackwardDataWorkspaceSize(Handle(),
              filter_, y_, data_.desc, x_, algo, size);
        }, &data_);
  });
  CUDNN_CHECK(cudnnConvolutionBackwardData(Handle(), dataType<Dtype>::one,
      filter_, filter, y_, y, data_.desc, data_.algo, space, data_.size,
      dataType<Dtype>::zero, x_, x));
}

template <typename Dtype>
void Convolution<Dtype>::BackwardFilter(const Dtype* x, const Dtype* y,
    Dtype* filter) {
  void* space = Prepare(&weights_, [this](size_t limit) {
    int count = 0;
    cudnnConvolutionBwdFilterAlgoPerf_t
        found[CUDNN_CONVOLUTION_BWD_FILTER_ALGO_COUNT];
    CUDNN_CHECK(cudnnGetConvolutionBackwardFilterAlgorithm_v7(Handle(), x_, y_,
        weights_.desc, filter_, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_COUNT,
        &count, found));
    Take<Dtype>(found, count, limit,
        [this](cudnnConvolutionBwdFilterAlgo_t algo, size_t* size) {
          return cudnnGetConvolutionBackwardFilterWorkspaceSize(Handle(), x_,
              y_, weights_.desc, filter_, algo, size);
        }, &weights_);
  });
  CUDNN_CHECK(cudnnConvolutionBackwardFilter(Handle(), dataType<Dtype>::one,
      x_, x, y_, y, weights_.desc, weights_.algo, space, weights_.size,
      dataType<Dtype>::one, filter_, filter));
}

template <typename Dtype>
void Convolution<Dtype>::AddBiasToX(const Dtype* bias, Dtype* x) {
  CUDNN_CHECK(cudnnAddTensor(Handle(), dataType<Dtype>::one, x_bias_, bias,
      dataType<Dtype>::one, x_, x));
}

template <typename Dtype>
void Convolution<Dtype>::AddBiasToY(const Dtype* bias, Dtype* y) {
  CUDNN_CHECK(cudnnAddTensor(Handle(), dataType<Dtype>::one, y_bias_, bias,
      dataType<Dtype>::one, y_, y));
}

template <typename Dtype>
void Convolution<Dtype>::BackwardBiasOfX(const Dtype* x, Dtype* bias) {
  CUDNN_CHECK(cudnnConvolutionBackwardBias(Handle(), dataType<Dtype>::one, x_,
      x, dataType<Dtype>::one, x_bias_, bias));
}

template <typename Dtype>
void Convolution<Dtype>::BackwardBiasOfY(const Dtype* y, Dtype* bias) {
  CUDNN_CHECK(cudnnConvolutionBackwardBias(Handle(), dataType<Dtype>::one, y_,
      y, dataType<Dtype>::one, y_bias_, bias));
}

template class Convolution<float>;
template class Convolution<double>;

}  // namespace cudnn
}  // namespace caffe
#endif  // USE_CUDNN
