// Signals while a kernel runs: whatever would end the process ends the launch instead.
#pragma once

#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

constexpr int FAULTS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM};
constexpr int FAULT_KINDS = sizeof FAULTS / sizeof FAULTS[0];

// Handlers, a stack for them (a fiber's may have overflowed) and a timer of this thread's computing
// time; the destructor puts back what was there before.
class Watch {
public:
    Watch(void (*handler)(int, siginfo_t*, void*), double seconds) {
        stack_t own{};
        own.ss_sp = memory;
        own.ss_size = sizeof memory;
        sigaltstack(&own, &stack_before);
        struct sigaction action {};
        action.sa_sigaction = handler;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;  // it may leave and not return
        for (int i = 0; i < FAULT_KINDS; ++i) sigaction(FAULTS[i], &action, &before[i]);
        sigevent event{};
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = SIGALRM;
        event.sigev_notify_thread_id = static_cast<int>(syscall(SYS_gettid));
        timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer);
        itimerspec when{};
        when.it_value.tv_sec = static_cast<time_t>(seconds);
        when.it_value.tv_nsec = static_cast<long>((seconds - when.it_value.tv_sec) * 1e9);
        timer_settime(timer, 0, &when, nullptr);
    }

    ~Watch() {
        timer_delete(timer);
        for (int i = 0; i < FAULT_KINDS; ++i) sigaction(FAULTS[i], &before[i], nullptr);
        sigaltstack(&stack_before, nullptr);
    }

private:
    static unsigned char memory[64 << 10];
    struct sigaction before[FAULT_KINDS];
    stack_t stack_before;
    timer_t timer;
};

unsigned char Watch::memory[64 << 10];
