#include "store/s3/xml.h"

#include <gtest/gtest.h>

namespace leat::store::s3 {
namespace {

Result<Listing> Parse(std::string document) { return ParseListing(document); }

std::string Page(const std::string& inside) {
  return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
         "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">" +
         inside + "</ListBucketResult>";
}

TEST(S3Xml, AListingIsRead) {
  const auto page = Parse(
      Page("<Name>b</Name><KeyCount>2</KeyCount><IsTruncated>true</IsTruncated>"
           "<EncodingType>url</EncodingType><NextContinuationToken>a+b/=</NextContinuationToken>"
           "<Contents><Key>a+b%2Bc%25%0A%F0%9F%90%8E</Key><LastModified>2011-02-23T23:36:00.000Z"
           "</LastModified><ETag>&quot;00000000000000000000000000000000&quot;</ETag><Size>17</Size>"
           "<StorageClass>STANDARD</StorageClass></Contents>"
           "<Contents><Size>18446744073709551615</Size><Key>z</Key><StorageClass>DEEP_ARCHIVE"
           "</StorageClass></Contents>"));
  ASSERT_TRUE(page) << page.error().message();
  EXPECT_TRUE(page->truncated);
  EXPECT_TRUE(page->is_v2);
  EXPECT_EQ(page->next, "a+b/=");
  ASSERT_EQ(page->objects.size(), 2u);
  EXPECT_EQ(page->objects[0].key, "a b+c%\n🐎");
  EXPECT_EQ(page->objects[0].size, 17u);
  EXPECT_EQ(page->objects[0].version.etag, "00000000000000000000000000000000");
  EXPECT_EQ(page->objects[0].modified, std::chrono::sys_days(std::chrono::year(2011) / 2 / 23) +
                                           std::chrono::hours(23) + std::chrono::minutes(36));
  EXPECT_FALSE(page->objects[0].archived);
  EXPECT_EQ(page->objects[1].size, UINT64_MAX);
  EXPECT_TRUE(page->objects[1].archived);
}

std::string Versions(const std::string& inside) {
  return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
         "<ListVersionsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">" +
         inside + "</ListVersionsResult>";
}
std::string VersionEntry(const std::string& key, const std::string& id, bool latest,
                         const std::string& name = "Version") {
  return "<" + name + "><Key>" + key + "</Key><VersionId>" + id + "</VersionId><IsLatest>" +
         (latest ? "true" : "false") + "</IsLatest><ETag>\"e\"</ETag><Size>3</Size></" + name + ">";
}

TEST(S3Xml, OfVersionsTheLatestAreReadThatAreNoDeletion) {
  const auto parse = [](std::string document) { return ParseVersions(document); };
  const auto page = parse(
      Versions("<IsTruncated>true</IsTruncated><EncodingType>url</EncodingType>"
               "<KeyMarker>\x01%zz+&amp;</KeyMarker><NextKeyMarker>%</NextKeyMarker>" +
               VersionEntry("a%2F+b", "v2", true) + VersionEntry("a%2F+b", "v1", false) +
               VersionEntry("c", "v4", true, "DeleteMarker") + VersionEntry("c", "v3", false) +
               VersionEntry("d", "null", true) + VersionEntry("e", "v7", false)));
  ASSERT_TRUE(page) << page.error().message();
  ASSERT_EQ(page->objects.size(), 2u);
  EXPECT_EQ(page->objects[0].key, "a/ b");
  EXPECT_EQ(page->objects[0].version, (Version{"e", "v2"}));
  EXPECT_EQ(page->objects[0].size, 3u);
  EXPECT_EQ(page->objects[1].version, (Version{"e", "null"}));
  EXPECT_TRUE(page->truncated);
  EXPECT_EQ(page->settled, "d") << "what e is now comes later";
  EXPECT_EQ(page->last_key, "e");
  EXPECT_EQ(page->last_version, "v7");
  const auto deleted = parse(
      Versions("<IsTruncated>true</IsTruncated>" + VersionEntry("c", "v4", true, "DeleteMarker")));
  ASSERT_TRUE(deleted);
  EXPECT_EQ(deleted->settled, "c");
  EXPECT_TRUE(deleted->objects.empty());
  const std::string truncated = "<IsTruncated>true</IsTruncated>";
  EXPECT_EQ(parse(Versions(truncated + "<NextKeyMarker>a/b</NextKeyMarker>"))->last_key, "a/b");
  for (const std::string& document :
       {Versions(""), Versions(truncated), Page("<IsTruncated>false</IsTruncated>"),
        Versions(truncated + "<NextKeyMarker>a%2Fb</NextKeyMarker>"),
        Versions("<IsTruncated>false</IsTruncated><Version><IsLatest>true</IsLatest></Version>"),
        Versions("<IsTruncated>false</IsTruncated><Version><Key>k</Key><IsLatest>true</IsLatest>"
                 "</Version>")}) {
    const auto bad = parse(document);
    ASSERT_FALSE(bad) << document;
    EXPECT_EQ(bad.error().code(), Errc::kCorrupt);
  }
}

TEST(S3Xml, KeysAreTakenLiterallyWhereTheServerDidNotEncodeThem) {
  const auto page = Parse(
      Page("<IsTruncated>false</IsTruncated><Contents><Key>a+b%20c</Key><Size>0</Size></Contents>"
           "<Contents><Key> </Key><Size>0</Size></Contents>"
           "<Contents><Key>a<![CDATA[<&>]]>b</Key><Size>0</Size></Contents>"));
  ASSERT_TRUE(page) << page.error().message();
  EXPECT_FALSE(page->is_v2);
  EXPECT_EQ(page->objects[0].key, "a+b%20c");
  EXPECT_EQ(page->objects[1].key, " ");
  EXPECT_EQ(page->objects[2].key, "a<&>b");
}

TEST(S3Xml, WhatIsNoListingIsCorrupt) {
  const std::string good = "<IsTruncated>false</IsTruncated>";
  for (const std::string& document :
       {std::string(), std::string("hello"), std::string("<html><body>It works!</body></html>"),
        std::string("<ListBucketResult>"), Page(good).substr(0, 120), Page(""),
        Page("<IsTruncated>maybe</IsTruncated>"), Page(good) + Page(good),
        std::string("<Error><Code>SlowDown</Code></Error>"),
        Page(good + "<Contents><Size>1</Size></Contents>"),
        Page(good + "<Contents><Key></Key><Size>1</Size></Contents>"),
        Page(good + "<Contents><Key>a</Key></Contents>"),
        Page(good + "<Contents><Key>a</Key><Size>-1</Size></Contents>"),
        Page(good + "<Contents><Key>a</Key><Size>1e3</Size></Contents>"),
        Page(good + "<Contents><Key>a</Key><Size>18446744073709551616</Size></Contents>"),
        Page(good + "<Contents><Key>a<Size>1</Size></Contents>")}) {
    SCOPED_TRACE(document);
    const auto page = Parse(document);
    ASSERT_FALSE(page);
    EXPECT_EQ(page.error().code(), Errc::kCorrupt);
  }
}

TEST(S3Xml, AnErrorIsReadAndNothingElseIsOne) {
  const auto error = ParseError(
      "<?xml version=\"1.0\"?><Error><Code>PermanentRedirect</Code><Message>a &lt; b</Message>"
      "<Endpoint>b.s3.eu-west-1.amazonaws.com</Endpoint><Region>eu-west-1</Region></Error>");
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, "PermanentRedirect");
  EXPECT_EQ(error->message, "a < b");
  EXPECT_EQ(error->endpoint, "b.s3.eu-west-1.amazonaws.com");
  EXPECT_EQ(error->region, "eu-west-1");
  for (const char* document : {"", "Error", "<Error", "<html/>", "<A><Error/></A>", "\xff\xfe"}) {
    EXPECT_FALSE(ParseError(document)) << document;
  }
}

TEST(S3Xml, KeysThatAreDeletedAreWrittenSoThatTheyAreReadBack) {
  const std::vector<std::string_view> keys = {"a", "<b>&amp;\r\n\t", "ü]]>"};
  EXPECT_EQ(WriteDelete(keys),
            "<Delete><Quiet>true</Quiet><Object><Key>a</Key></Object>"
            "<Object><Key>&#60;b&#62;&#38;amp;&#13;&#10;&#9;</Key></Object>"
            "<Object><Key>ü]]&#62;</Key></Object></Delete>");
  for (const std::string_view key : keys) EXPECT_TRUE(XmlCanHold(key));
  for (const std::string_view key :
       {"\x01", "\x1f", "\xff", "\xEF\xBF\xBF", "\xEF\xBF\xBE", "\xED\xA0\x80"})
    EXPECT_FALSE(XmlCanHold(key)) << key;
}

TEST(S3Xml, OfADeletionTheErrorsAreRead) {
  const auto errors = ParseDeleteErrors(
      "<DeleteResult xmlns=\"x\"><Deleted><Key>a</Key></Deleted><Error><Key>&lt;b</Key>"
      "<Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>");
  ASSERT_TRUE(errors);
  ASSERT_EQ(errors->size(), 1u);
  EXPECT_EQ(*errors->begin(), "<b");
  EXPECT_EQ(ParseDeleteErrors("<html/>").error().code(), Errc::kCorrupt);
  EXPECT_EQ(ParseDeleteErrors("").error().code(), Errc::kCorrupt);
}

TEST(S3Xml, GlacierInstantRetrievalIsNotArchived) {
  EXPECT_TRUE(IsArchiveClass("GLACIER"));
  EXPECT_TRUE(IsArchiveClass("DEEP_ARCHIVE"));
  EXPECT_FALSE(IsArchiveClass("GLACIER_IR"));
  EXPECT_FALSE(IsArchiveClass("STANDARD"));
}

}  // namespace
}  // namespace leat::store::s3
