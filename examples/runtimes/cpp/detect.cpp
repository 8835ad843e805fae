// Asks an exported ONNX file about an image.
//
//     detect screws.onnx photo.ppm
//
// prints score, flag and map. Images are binary PPM (color) or PGM (gray) files
// with 8 bits: `convert photo.png photo.ppm`.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

struct Image {
  int64_t height = 0, width = 0, channels = 0;
  std::vector<float> values;  // from 0 to 1, row by row, channels last
};

Image read_image(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  auto next = [&file]() {
    std::string word;
    while (file >> word && word[0] == '#') std::getline(file, word);
    return word;
  };
  const std::string kind = next(), width = next(), height = next();
  if ((kind != "P5" && kind != "P6") || next() != "255")
    throw std::runtime_error(path + " is no PPM or PGM file with 8 bits");
  Image image{std::stoll(height), std::stoll(width), kind == "P5" ? 1 : 3, {}};
  file.get();  // the one space before the pixels
  std::vector<char> bytes(image.height * image.width * image.channels);
  if (!file.read(bytes.data(), static_cast<std::streamsize>(bytes.size())))
    throw std::runtime_error(path + " ends too early");
  for (char byte : bytes)
    image.values.push_back(static_cast<unsigned char>(byte) / 255.0f);
  return image;
}

// Resizes one axis as in training: bilinearly, with antialiasing. The values
// are `count` lines of `size` pixels of `step` values each.
std::vector<float> resize_axis(const std::vector<float>& values, int64_t count,
                               int64_t size, int64_t step, int64_t new_size) {
  const double scale = static_cast<double>(size) / new_size;
  const double radius = std::max(scale, 1.0);
  std::vector<float> result(count * new_size * step);
  for (int64_t i = 0; i < new_size; ++i) {
    const double center = (i + 0.5) * scale;
    const int64_t first = std::max<int64_t>(0, std::floor(center - radius));
    const int64_t end = std::min<int64_t>(size, std::ceil(center + radius));
    std::vector<double> weights;
    double total = 0;
    for (int64_t j = first; j < end; ++j) {
      const double distance = std::abs(j + 0.5 - center) / radius;
      weights.push_back(std::max(0.0, 1.0 - distance));
      total += weights.back();
    }
    for (int64_t line = 0; line < count; ++line)
      for (int64_t k = 0; k < step; ++k) {
        double sum = 0;
        for (int64_t j = first; j < end; ++j)
          sum += weights[j - first] * values[(line * size + j) * step + k];
        result[(line * new_size + i) * step + k] =
            static_cast<float>(sum / total);
      }
  }
  return result;
}

int main(int argc, char** argv) try {
  if (argc != 3) throw std::runtime_error("usage: detect MODEL.onnx IMAGE.ppm");
  // It warns of inputs that may be left out, such as `threshold`.
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "detect");
  std::basic_string<ORTCHAR_T> path(argv[1], argv[1] + strlen(argv[1]));
  Ort::Session session(env, path.c_str(), Ort::SessionOptions{nullptr});

  // The shape is (batch, height, width, channels).
  const auto shape =
      session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
  Image image = read_image(argv[2]);
  if (shape.size() != 4 || shape[3] != image.channels)
    throw std::runtime_error("The model takes images of " +
                             std::to_string(shape.back()) + " channels");
  // Sizes that are open, -1, stay as they are.
  const int64_t height = shape[1] > 0 ? shape[1] : image.height;
  const int64_t width = shape[2] > 0 ? shape[2] : image.width;
  image.values = resize_axis(image.values, image.height, image.width,
                             image.channels, width);
  image.values = resize_axis(image.values, 1, image.height,
                             width * image.channels, height);

  const std::vector<int64_t> sizes{1, height, width, image.channels};
  auto input = Ort::Value::CreateTensor<float>(
      Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeCPU),
      image.values.data(), image.values.size(), sizes.data(), sizes.size());
  const char* inputs[] = {"image"};
  const char* outputs[] = {"anomaly_score", "is_anomalous", "anomaly_map"};
  auto results = session.Run(Ort::RunOptions{nullptr}, inputs, &input, 1,
                             outputs, 3);

  std::cout << "score " << results[0].GetTensorData<float>()[0] << '\n'
            << "anomalous " << results[1].GetTensorData<bool>()[0] << '\n';
  const float* map = results[2].GetTensorData<float>();
  for (int64_t row = 0; row < height; ++row)
    for (int64_t column = 0; column < width; ++column)
      std::cout << map[row * width + column]
                << (column + 1 < width ? ' ' : '\n');
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
