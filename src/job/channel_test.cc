#include "job/channel.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

namespace leat::job {
namespace {

std::ptrdiff_t OpenDescriptors() {
  const auto names = os::ListDir("/proc/self/fd");
  return static_cast<std::ptrdiff_t>(names->size());
}

TEST(Channel, CarriesKindNumberTextAndDescriptor) {
  auto ends = Channel::MakePair();
  ASSERT_TRUE(ends);
  int pipe[2];
  ASSERT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
  const std::string text = std::string("zero \0 and \xff", 12);
  ASSERT_TRUE(ends->first.Send(MessageKind::kReady, -7, text, pipe[1]));
  ASSERT_TRUE(ends->first.Send(MessageKind::kFinish));
  auto message = ends->second.Receive();
  ASSERT_TRUE(message);
  EXPECT_EQ(message->kind, MessageKind::kReady);
  EXPECT_EQ(message->number, -7);
  EXPECT_EQ(message->text, text);
  ASSERT_TRUE(message->fd);
  EXPECT_NE(::fcntl(message->fd.get(), F_GETFD) & FD_CLOEXEC, 0);
  ASSERT_EQ(::write(message->fd.get(), "x", 1), 1);
  char c = 0;
  ASSERT_EQ(::read(pipe[0], &c, 1), 1);
  EXPECT_EQ(c, 'x');
  message = ends->second.Receive();
  ASSERT_TRUE(message);
  EXPECT_EQ(message->kind, MessageKind::kFinish);
  EXPECT_EQ(message->text, "");
  EXPECT_FALSE(message->fd);
  ::close(pipe[0]);
  ::close(pipe[1]);
}

TEST(Channel, LongTextIsCutAndTheNextMessageIsWhole) {
  auto ends = Channel::MakePair();
  ASSERT_TRUE(ends->first.Send(MessageKind::kFailed, 1, std::string(200'000, 'x')));
  ASSERT_TRUE(ends->first.Send(MessageKind::kFailed, 2, "next"));
  EXPECT_EQ(ends->second.Receive()->text, std::string(60'000, 'x'));
  EXPECT_EQ(ends->second.Receive()->text, "next");
}

TEST(Channel, EndOfTheOtherSideIsSeen) {
  auto ends = Channel::MakePair();
  ASSERT_TRUE(ends->first.Send(MessageKind::kReady, 1));
  ends->first.Close();
  EXPECT_TRUE(ends->second.Receive()) << "what was sent before arrives";
  EXPECT_FALSE(ends->second.Receive());
  EXPECT_FALSE(ends->second.Send(MessageKind::kReady)) << "and no SIGPIPE";
}

TEST(Channel, DeathOfTheOtherProcessIsSeen) {
  auto ends = Channel::MakePair();
  const pid_t pid = ::fork();
  if (pid == 0) {
    ends->second.Close();
    ::_exit(ends->first.Send(MessageKind::kStarted, ::getpid()) ? 0 : 1);
  }
  ends->first.Close();
  EXPECT_EQ(ends->second.Receive()->number, pid);
  EXPECT_FALSE(ends->second.Receive());
  ::waitpid(pid, nullptr, 0);
}

TEST(Channel, ShortAndLyingMessagesAreTheEndAndLeakNoDescriptor) {
  const auto before = OpenDescriptors();
  {
    auto ends = Channel::MakePair();
    for (const std::string& raw : {std::string("x"), std::string(15, '\0'),
                                   std::string("\0\0\0\0\xff\xff\0\0"
                                               "\0\0\0\0\0\0\0\0abc",
                                               19)}) {
      ASSERT_EQ(::send(ends->first.fd(), raw.data(), raw.size(), 0),
                static_cast<ssize_t>(raw.size()));
      EXPECT_FALSE(ends->second.Receive());
    }
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(ends->first.Send(MessageKind::kDevice, i, "", ends->first.fd()));
      ASSERT_TRUE(ends->second.Receive());
    }
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

}  // namespace
}  // namespace leat::job
