// Reading JSON that others wrote. It brings nlohmann's header, so only sources include it.
#ifndef LEAT_BASE_JSON_FIELDS_H_
#define LEAT_BASE_JSON_FIELDS_H_

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace leat {

/// Discarded (neither object nor anything else) where it is no JSON.
inline nlohmann::json ParseJson(std::string_view text) {
  return nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
}
/// null where `document` is no object or has no such field.
inline const nlohmann::json& Field(const nlohmann::json& document, const char* key) {
  static const nlohmann::json kNothing;
  const auto found = document.find(key);
  return document.is_object() && found != document.end() ? *found : kNothing;
}
/// Empty where there is no such field, or where it is no text.
inline std::string TextOf(const nlohmann::json& document, const char* key) {
  const nlohmann::json& field = Field(document, key);
  return field.is_string() ? field.get<std::string>() : std::string();
}

}  // namespace leat

#endif  // LEAT_BASE_JSON_FIELDS_H_
