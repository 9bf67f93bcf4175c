#include "auth/credentials.h"

#include <optional>
#include <vector>

#include "auth/container.h"
#include "auth/instance_metadata.h"
#include "auth/profile.h"
#include "auth/refreshing.h"

namespace leat::auth {
namespace {

class StaticProvider final : public CredentialProvider {
 public:
  explicit StaticProvider(Credentials credentials) : credentials_(std::move(credentials)) {}
  Result<Credentials> Get(const CallContext&) override { return credentials_; }

 private:
  const Credentials credentials_;
};

class EnvironmentSource final : public CredentialProvider {
 public:
  explicit EnvironmentSource(config::Environment env) : env_(std::move(env)) {}
  Result<Credentials> Get(const CallContext&) override { return EnvironmentCredentials(env_); }

 private:
  const config::Environment env_;
};

// Not thread-safe by itself: RefreshingProvider asks it from one thread at a time.
class Chain final : public CredentialProvider {
 public:
  explicit Chain(std::vector<std::unique_ptr<CredentialProvider>> sources)
      : sources_(std::move(sources)) {}

  Result<Credentials> Get(const CallContext& ctx) override {
    // The source that gave credentials once is asked for the next ones, too: a service that is away
    // for a moment must not turn a run anonymous.
    if (found_ != nullptr) {
      auto credentials = found_->Get(ctx);
      if (!credentials && credentials.error().code() == Errc::kNotFound) {
        return Fail(Errc::kDenied, credentials.error().message());
      }
      return credentials;
    }
    for (const auto& source : sources_) {
      auto credentials = source->Get(ctx);
      if (!credentials && credentials.error().code() == Errc::kNotFound) continue;
      if (credentials) found_ = source.get();
      return credentials;
    }
    return Credentials{.access_key_id = {},
                       .secret_access_key = {},
                       .session_token = {},
                       .expires = {},
                       .provider = "anonymous"};
  }

 private:
  const std::vector<std::unique_ptr<CredentialProvider>> sources_;
  CredentialProvider* found_ = nullptr;  // one of sources_
};

}  // namespace

std::unique_ptr<CredentialProvider> MakeAnonymous() {
  return MakeStatic({.access_key_id = {},
                     .secret_access_key = {},
                     .session_token = {},
                     .expires = {},
                     .provider = "anonymous"});
}

std::unique_ptr<CredentialProvider> MakeStatic(Credentials credentials) {
  return std::make_unique<StaticProvider>(std::move(credentials));
}

std::unique_ptr<CredentialProvider> MakeAwsChain(AwsChainOptions options, config::Environment env,
                                                 const config::AwsConfig& config,
                                                 net::HttpTransport& http, Clock& clock) {
  const SourceContext context{std::move(options), std::move(env), config, http, clock};
  std::vector<std::unique_ptr<CredentialProvider>> sources;
  if (context.options.profile.empty()) {
    sources.push_back(std::make_unique<EnvironmentSource>(context.env));
    sources.push_back(MakeWebIdentitySource(context));
  }
  sources.push_back(MakeProfileSource(context));
  sources.push_back(MakeContainerSource(context.env, http));
  sources.push_back(MakeInstanceMetadataSource(context.env, http, [] { return MachineIsEc2(); }));
  return std::make_unique<RefreshingProvider>(std::make_unique<Chain>(std::move(sources)), clock);
}

}  // namespace leat::auth
