#include "config/aws_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace leat::config {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Environment Variables(std::map<std::string, std::string> variables) {
  return [variables = std::move(variables)](std::string_view name) -> std::optional<std::string> {
    const auto found = variables.find(std::string(name));
    if (found == variables.end() || found->second.empty()) return std::nullopt;
    return found->second;
  };
}

AwsConfig Parsed(std::string_view config, std::string_view credentials = {}) {
  auto parsed = AwsConfig::Parse(config, "config", credentials, "credentials");
  EXPECT_TRUE(parsed) << parsed.error().message();
  return parsed ? *std::move(parsed) : AwsConfig();
}
std::string ErrorOf(std::string_view config, std::string_view credentials = {}) {
  const auto parsed = AwsConfig::Parse(config, "config", credentials, "credentials");
  if (parsed) return "no error";
  EXPECT_EQ(parsed.error().code(), Errc::kInvalid);
  return parsed.error().message();
}

TEST(AwsConfigTest, ProfilesHavePropertiesInEitherFile) {
  const AwsConfig config =
      Parsed("[default]\nregion = eu-west-1\n[profile foo]\nregion=us-west-2\n",
             "[default]\naws_access_key_id = A\n[bar]\naws_access_key_id = B\n");
  EXPECT_THAT(config.Profiles(), ElementsAre("bar", "default", "foo"));
  EXPECT_EQ(config.Get("default", "region"), "eu-west-1");
  EXPECT_EQ(config.Get("default", "aws_access_key_id"), "A");
  EXPECT_EQ(config.Get("foo", "region"), "us-west-2");
  EXPECT_EQ(config.Get("bar", "aws_access_key_id"), "B");
  EXPECT_EQ(config.Get("bar", "region"), std::nullopt);
  EXPECT_EQ(config.Get("none", "region"), std::nullopt);
}

TEST(AwsConfigTest, CredentialsWinOverConfig) {
  EXPECT_EQ(Parsed("[profile foo]\nname = value", "[foo]\nname = value2").Get("foo", "name"),
            "value2");
}

TEST(AwsConfigTest, TheProfilePrefixIsForTheConfigFileAlone) {
  EXPECT_THAT(Parsed("[foo]\nname = value").Profiles(), ElementsAre());
  EXPECT_THAT(Parsed("", "[profile foo]\nname = value").Profiles(), ElementsAre());
}

TEST(AwsConfigTest, APrefixedDefaultBeatsABareOneInAnyOrder) {
  for (const char* text : {"[profile default]\nname = value\n[default]\nname2 = value2",
                           "[default]\nname2 = value2\n[profile default]\nname = value"}) {
    const AwsConfig config = Parsed(text, "[default]\nsecret = s");
    EXPECT_EQ(config.Get("default", "name"), "value") << text;
    EXPECT_EQ(config.Get("default", "name2"), std::nullopt) << text;
    EXPECT_EQ(config.Get("default", "secret"), "s") << text;
  }
}

TEST(AwsConfigTest, SectionNamesAreTrimmedAndMayBeQuoted) {
  EXPECT_TRUE(Parsed("[profile \tfoo \t]").HasProfile("foo"));
  EXPECT_TRUE(Parsed("[profile\tfoo]").HasProfile("foo"));
  EXPECT_TRUE(Parsed("[ profile foo ]").HasProfile("foo"));
  EXPECT_TRUE(Parsed("[profile \"foo bar\"]").HasProfile("foo bar"));
  EXPECT_TRUE(Parsed("", "[\"foo bar\"]").HasProfile("foo bar"));
  EXPECT_THAT(Parsed("[profile in valid]\nname = value", "[in valid 2]\nname = value").Profiles(),
              ElementsAre());
}

TEST(AwsConfigTest, SectionsOfOtherKindsAreSkipped) {
  const AwsConfig config = Parsed(
      "[sso-session corp]\nsso_region = x\n[plugins]\nnested =\n  a = b\n[profile "
      "foo]\nsso_session = corp\n");
  EXPECT_THAT(config.Profiles(), ElementsAre("foo"));
  EXPECT_EQ(config.Get("foo", "sso_session"), "corp");
}

TEST(AwsConfigTest, RepeatedProfilesAndPropertiesMergeAndTheLastWins) {
  const AwsConfig config =
      Parsed("[profile foo]\na = 1\nb = 1\n[profile bar]\n[profile foo]\nb = 2\nb = 3\n");
  EXPECT_EQ(config.Get("foo", "a"), "1");
  EXPECT_EQ(config.Get("foo", "b"), "3");
}

TEST(AwsConfigTest, WhiteSpaceAndLineEndsDoNotMatter) {
  const AwsConfig config =
      Parsed("\xef\xbb\xbf\t \r\n[profile foo]\r\n\t\r\nname \t=  \tval=ue \t\r\n\r\nother=x");
  EXPECT_EQ(config.Get("foo", "name"), "val=ue");
  EXPECT_EQ(config.Get("foo", "other"), "x");
}

TEST(AwsConfigTest, NamesOfPropertiesHaveNoCase) {
  EXPECT_EQ(Parsed("[default]\nReGion = x").Get("default", "region"), "x");
}

TEST(AwsConfigTest, EmptyValuesCountAsUnset) {
  EXPECT_EQ(Parsed("[default]\nregion =").Get("default", "region"), std::nullopt);
}

TEST(AwsConfigTest, CommentsBeginLinesOrFollowWhiteSpace) {
  const AwsConfig config = Parsed(
      "# one\n; two\n   # indented\n[profile foo]; three\nname = value # four ; five\nother = "
      "value\t;six\n"
      "[profile bar]# seven\nname = value; adjacent\nother = value# adjacent\n");
  EXPECT_EQ(config.Get("foo", "name"), "value");
  EXPECT_EQ(config.Get("foo", "other"), "value");
  EXPECT_EQ(config.Get("bar", "name"), "value; adjacent");
  EXPECT_EQ(config.Get("bar", "other"), "value# adjacent");
}

TEST(AwsConfigTest, IndentedLinesContinueAValue) {
  const AwsConfig config =
      Parsed("[profile foo]\nname = value\n \t -continued \t\n\n  more # no comment\n");
  EXPECT_EQ(config.Get("foo", "name"), "value\n-continued\nmore # no comment");
}

TEST(AwsConfigTest, IndentedLinesUnderAnEmptyValueAreNested) {
  const AwsConfig config = Parsed(
      "[profile foo]\ns3 =\n  addressing_style = path\n\n  # comment\n  Other=x\nregion = r\n");
  EXPECT_EQ(config.Get("foo", "s3.addressing_style"), "path");
  EXPECT_EQ(config.Get("foo", "s3.other"), "x");
  EXPECT_EQ(config.Get("foo", "region"), "r");
}

TEST(AwsConfigTest, ServicesSectionsAreFollowed) {
  const AwsConfig config = Parsed(
      "[services lab]\ns3 =\n  endpoint_url = http://s3.lab\nsts =\n  endpoint_url = "
      "http://sts.lab\n"
      "[profile foo]\nservices = lab\n[profile bar]\nservices = missing\n");
  EXPECT_EQ(config.Get("foo", "services.s3.endpoint_url"), "http://s3.lab");
  EXPECT_EQ(config.Get("foo", "services.sts.endpoint_url"), "http://sts.lab");
  EXPECT_EQ(config.Get("bar", "services.s3.endpoint_url"), std::nullopt);
}

TEST(AwsConfigTest, ErrorsNameFileAndLineAndNeverTheText) {
  EXPECT_THAT(ErrorOf("[profile foo"), HasSubstr("config:1: "));
  EXPECT_THAT(ErrorOf("[profile foo] hunter2"), HasSubstr("config:1: "));
  EXPECT_THAT(ErrorOf("name = hunter2"), HasSubstr("config:1: "));
  EXPECT_THAT(ErrorOf(" hunter2"), HasSubstr("config:1: "));
  EXPECT_THAT(ErrorOf("[profile foo]\n\n= hunter2"), HasSubstr("config:3: "));
  EXPECT_THAT(ErrorOf("[profile foo]\nhunter2 : x"), HasSubstr("config:2: "));
  EXPECT_THAT(ErrorOf("[profile foo]\n -hunter2"), HasSubstr("config:2: "));
  EXPECT_THAT(ErrorOf("[profile foo]\na = b\n[profile foo]\n -hunter2"), HasSubstr("config:4: "));
  EXPECT_THAT(ErrorOf("[profile foo]\ns3 =\n hunter2"), HasSubstr("config:3: "));
  EXPECT_THAT(ErrorOf("[profile foo]\ns3 =\n = hunter2"), HasSubstr("config:3: "));
  const std::string error = ErrorOf("", "[default]\nhunter2");
  EXPECT_THAT(error, HasSubstr("credentials:2: "));
  EXPECT_EQ(error.find("hunter2"), std::string::npos);
}

TEST(AwsConfigTest, TheProfilesNameComesFromTheMountThenTheEnvironment) {
  EXPECT_EQ(AwsConfig::ProfileName(Variables({}), ""), "default");
  EXPECT_EQ(AwsConfig::ProfileName(Variables({{"AWS_DEFAULT_PROFILE", "b"}}), ""), "b");
  EXPECT_EQ(
      AwsConfig::ProfileName(Variables({{"AWS_DEFAULT_PROFILE", "b"}, {"AWS_PROFILE", "a"}}), ""),
      "a");
  EXPECT_EQ(AwsConfig::ProfileName(Variables({{"AWS_PROFILE", "a"}}), "m"), "m");
}

class AwsConfigFilesTest : public ::testing::Test {
 protected:
  AwsConfigFilesTest() {
    char folder[] = "/tmp/leat-config-XXXXXX";
    home_ = mkdtemp(folder);
    std::filesystem::create_directory(home_ + "/.aws");
  }
  ~AwsConfigFilesTest() override { std::filesystem::remove_all(home_); }
  void Write(const std::string& path, std::string_view text) {
    std::ofstream(home_ + path) << text;
  }

  std::string home_;
};

TEST_F(AwsConfigFilesTest, MissingFilesAreEmpty) {
  EXPECT_TRUE(AwsConfig::Load(Variables({{"HOME", home_}})));
  EXPECT_TRUE(AwsConfig::Load(Variables({})));
  EXPECT_TRUE(AwsConfig::Load(
      Variables({{"HOME", home_ + "/none"}, {"AWS_CONFIG_FILE", "/no/such/file"}})));
}

TEST_F(AwsConfigFilesTest, FilesAreFoundInTheHomeOrWhereTheEnvironmentSays) {
  Write("/.aws/config", "[default]\nregion = home\n");
  Write("/.aws/credentials", "[default]\naws_access_key_id = home\n");
  Write("/other", "[default]\nregion = other\n");
  const auto home = AwsConfig::Load(Variables({{"HOME", home_}}));
  ASSERT_TRUE(home);
  EXPECT_EQ(home->Get("default", "region"), "home");
  EXPECT_EQ(home->Get("default", "aws_access_key_id"), "home");
  const auto other = AwsConfig::Load(Variables({{"HOME", home_},
                                                {"AWS_CONFIG_FILE", "~/other"},
                                                {"AWS_SHARED_CREDENTIALS_FILE", home_ + "/none"}}));
  ASSERT_TRUE(other);
  EXPECT_EQ(other->Get("default", "region"), "other");
  EXPECT_EQ(other->Get("default", "aws_access_key_id"), std::nullopt);
}

TEST_F(AwsConfigFilesTest, AFileThatCannotBeReadIsNamed) {
  std::filesystem::create_directory(home_ + "/.aws/config");
  const auto config = AwsConfig::Load(Variables({{"HOME", home_}}));
  ASSERT_FALSE(config);
  EXPECT_THAT(config.error().message(), HasSubstr(home_ + "/.aws/config"));
}

TEST(S3SettingsTest, NothingConfiguredIsAwsInAGuessedRegion) {
  const auto settings = ResolveS3Settings(Variables({}), AwsConfig(), {});
  ASSERT_TRUE(settings);
  EXPECT_EQ(settings->profile, "default");
  EXPECT_EQ(settings->region, "us-east-1");
  EXPECT_FALSE(settings->region_given);
  EXPECT_EQ(settings->endpoint, "");
  EXPECT_EQ(settings->addressing_style, "auto");
  EXPECT_EQ(settings->ca_bundle, "");
}

TEST(S3SettingsTest, EachSettingIsTakenFromTheFirstPlaceThatHasIt) {
  const AwsConfig config = Parsed(
      "[services lab]\ns3 =\n endpoint_url = http://services\n"
      "[default]\nregion = profile\nendpoint_url = http://profile\nservices = lab\nca_bundle = "
      "~/ca\n"
      "s3 =\n addressing_style = path\n[profile plain]\nendpoint_url = http://plain\n");
  std::map<std::string, std::string> env = {{"HOME", "/h"}};
  const auto resolve = [&](const S3Overrides& overrides = {}) {
    auto settings = ResolveS3Settings(Variables(env), config, overrides);
    EXPECT_TRUE(settings) << settings.error().message();
    return settings.value_or(S3Settings{});
  };
  EXPECT_EQ(resolve().region, "profile");
  EXPECT_TRUE(resolve().region_given);
  EXPECT_EQ(resolve().endpoint, "http://services");
  EXPECT_EQ(resolve().addressing_style, "path");
  EXPECT_EQ(resolve().ca_bundle, "/h/ca");
  EXPECT_EQ(resolve({.profile = "plain", .region = {}, .endpoint = {}}).endpoint, "http://plain");
  EXPECT_EQ(resolve({.profile = "plain", .region = {}, .endpoint = {}}).profile, "plain");
  env["AWS_ENDPOINT_URL"] = "http://all";
  EXPECT_EQ(resolve().endpoint, "http://all");
  env["AWS_ENDPOINT_URL_S3"] = "http://s3";
  EXPECT_EQ(resolve().endpoint, "http://s3");
  EXPECT_EQ(resolve({.profile = {}, .region = {}, .endpoint = "http://mount"}).endpoint,
            "http://mount");
  env["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"] = "true";
  EXPECT_EQ(resolve().endpoint, "");
  EXPECT_EQ(resolve({.profile = {}, .region = {}, .endpoint = "http://mount"}).endpoint,
            "http://mount");
  env["AWS_DEFAULT_REGION"] = "default";
  EXPECT_EQ(resolve().region, "default");
  env["AWS_REGION"] = "region";
  EXPECT_EQ(resolve().region, "region");
  EXPECT_EQ(resolve({.profile = {}, .region = "mount", .endpoint = {}}).region, "mount");
  env["AWS_CA_BUNDLE"] = "/ca";
  EXPECT_EQ(resolve().ca_bundle, "/ca");
}

TEST(S3SettingsTest, AProfileThatIsNotThereNamesThoseThatAre) {
  const AwsConfig config = Parsed("[profile a]\n[profile b]\n");
  for (const bool by_mount : {true, false}) {
    const auto settings =
        ResolveS3Settings(Variables({{"AWS_PROFILE", by_mount ? "" : "c"}}), config,
                          {.profile = by_mount ? "c" : "", .region = {}, .endpoint = {}});
    ASSERT_FALSE(settings);
    EXPECT_EQ(settings.error().code(), Errc::kInvalid);
    EXPECT_EQ(settings.error().message(), "there is no AWS profile \"c\"; there are a, b");
  }
}

TEST(S3SettingsTest, AnUnknownAddressingStyleIsInvalid) {
  EXPECT_FALSE(
      ResolveS3Settings(Variables({}), Parsed("[default]\ns3 =\n addressing_style = dns\n"), {}));
}

TEST(EnvironmentTest, EmptyVariablesAreUnset) {
  setenv("LEAT_TEST_VARIABLE", "", 1);
  EXPECT_EQ(ProcessEnvironment()("LEAT_TEST_VARIABLE"), std::nullopt);
  setenv("LEAT_TEST_VARIABLE", "x", 1);
  EXPECT_EQ(ProcessEnvironment()("LEAT_TEST_VARIABLE"), "x");
  unsetenv("LEAT_TEST_VARIABLE");
  EXPECT_EQ(ProcessEnvironment()("LEAT_TEST_VARIABLE"), std::nullopt);
}

}  // namespace
}  // namespace leat::config
