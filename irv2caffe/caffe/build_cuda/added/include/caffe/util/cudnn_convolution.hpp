#ifndef CAFFE_UTIL_CUDNN_CONVOLUTION_HPP_
#define CAFFE_UTIL_CUDNN_CONVOLUTION_HPP_
#ifdef USE_CUDNN

#include "caffe/util/cudnn.hpp"

namespace caffe {
namespace cudnn {

// The sizes of a convolution from x (num, channels, height, width) to
// y (num, num_output, height_out, width_out).
struct ConvolutionShape {
  int num;
  int channels, height, width;
  int num_output, height_out, width_out;
  int kernel[2], pad[2], stride[2], dilation[2];  // vertical, horizontal
  int group;
};

template <typename Algo>
struct Pass {
  Pass() : desc(NULL), algo(), size(0), chosen(false) {}
  cudnnConvolutionDescriptor_t desc;
  Algo algo;
  size_t size;  // of the workspace, in bytes
  bool chosen;
};

// A convolution and its gradients; a deconvolution is the gradient of x.
//
// Algorithms are those that cuDNN expects to be the fastest within
// CAFFE_CUDNN_WORKSPACE_MB (256), chosen when a pass runs for the first time
// with a shape. Float is computed in float; CAFFE_TF32=1 allows TF32.
template <typename Dtype>
class Convolution {
 public:
  Convolution();
  ~Convolution();

  // Must be called before the others; cheap if the shape has not changed.
  void SetShape(const ConvolutionShape& shape);
  // y = x * filter
  void Forward(const Dtype* x, const Dtype* filter, Dtype* y);
  // x = the gradient of x for this gradient of y
  void BackwardData(const Dtype* y, const Dtype* filter, Dtype* x);
  // filter += the gradient of the filter for this gradient of y
  void BackwardFilter(const Dtype* x, const Dtype* y, Dtype* filter);
  // x or y += bias
  void AddBiasToX(const Dtype* bias, Dtype* x);
  void AddBiasToY(const Dtype* bias, Dtype* y);
  // bias += the gradient of the bias for this gradient of x or y
  void BackwardBiasOfX(const Dtype* x, Dtype* bias);
  void BackwardBiasOfY(const Dtype* y, Dtype* bias);

 private:
  Convolution(const Convolution&);
  Convolution& operator=(const Convolution&);

  void Create();

  ConvolutionShape shape_;
  cudnnTensorDescriptor_t x_, y_, x_bias_, y_bias_;
  cudnnFilterDescriptor_t filter_;
  Pass<cudnnConvolutionFwdAlgo_t> forward_;
  Pass<cudnnConvolutionBwdDataAlgo_t> data_;
  Pass<cudnnConvolutionBwdFilterAlgo_t> weights_;
};

}  // namespace cudnn
}  // namespace caffe

#endif  // USE_CUDNN
#endif  // CAFFE_UTIL_CUDNN_CONVOLUTION_HPP_
