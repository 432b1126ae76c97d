/* tests/test_meeting.c - how ranks meet: strangers at the door, who does not come, where rank 0 is. */
#include "tests/inranks.h"

#include "base/opt.h"
#include "base/ranks.h"
#include "ranks/launch.h"
#include "ranks/rendezvous.h"
#include "ranks/watch.h"

#include <arpa/inet.h>
#include <sys/socket.h>

static int sum_of_ranks(struct group *g, struct err *e)
{
    float x[3] = { (float)me, 1, 0.5F };
    int rc = g->sum(g, x, 3, e);

    if (rc == 0)
        MUST(x[0] == 3 && x[1] == 3 && x[2] == 1.5F); /* of ranks 0, 1 and 2 */
    return rc;
}

/* ---- strangers at the door */

static int knock(int door, const void *b, size_t n)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)net_port(door)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(send(fd, b, n, MSG_NOSIGNAL), (ssize_t)n);
    return fd;
}

/* As a rank of this job would say it; another token where wrong_token. */
static void hello(unsigned char b[HELLO_BYTES], bool wrong_token, uint32_t version, int rank)
{
    struct hello h = { .purpose = HELLO_MEET, .version = version, .size = 3, .rank = rank,
                       .port = 9, .host = "elsewhere", .release = LONGLORA_VERSION };
    struct ranks r = { .by = RANKS_OWN, .rank = 1, .size = 3 };
    struct err e = { 0 };
    struct place p;

    setenv("LONGLORA_TOKEN", wrong_token ? "another" : "test", 1);
    setenv("LONGLORA_PORT", "9", 1);
    assert_int_equal(place_find(&p, &r, &e), 0);
    memcpy(h.token, p.token, TOKEN_BYTES);
    hello_write(&h, b);
}

enum { STRANGERS = 200 };
static int strangers[STRANGERS + 8];

static void many_strangers(int door)
{
    unsigned char b[HELLO_BYTES], noise[3000];
    int n = 0;

    memset(noise, 'x', sizeof noise);
    for (int i = 0; i < STRANGERS; i++) /* more than may wait, and they say nothing */
        strangers[n++] = knock(door, "", 0);
    hello(b, true, HELLO_VERSION, 1);
    strangers[n++] = knock(door, b, sizeof b);
    strangers[n++] = knock(door, noise, sizeof noise);
    strangers[n++] = knock(door, "GET / HTTP/1.1\r\n\r\n", 18);
    strangers[n++] = knock(door, "llranks\n", 8);
    hello(b, false, HELLO_VERSION, 1);
    b[0] = 'L';
    strangers[n++] = knock(door, b, sizeof b);
    hello(b, false, HELLO_VERSION, 1);
    strangers[n++] = knock(door, b, sizeof b - 1); /* all but the last byte, and no more */
    close(knock(door, b, 20));
    close(knock(door, "", 0));
}

static void test_strangers_do_no_harm(void **state)
{
    int status[MOST];

    (void)state;
    in_ranks(3, sum_of_ranks, 20, many_strangers, status);
    for (int r = 0; r < 3; r++)
        if (status[r] != 0)
            fail_msg("rank %d: %s", r, left[r].msg);
    for (int i = 0; i < STRANGERS + 6; i++) /* no answer to any of them */
        assert_true(recv(strangers[i], (char[1]){ 0 }, 1, 0) <= 0 && close(strangers[i]) == 0);
}

static void other_version(int door)
{
    unsigned char b[HELLO_BYTES];

    hello(b, false, HELLO_VERSION + 1, 1);
    strangers[0] = knock(door, b, sizeof b);
}

static void no_such_rank(int door)
{
    unsigned char b[HELLO_BYTES];

    hello(b, false, HELLO_VERSION, 3);
    strangers[0] = knock(door, b, sizeof b);
}

static void test_a_rank_that_cannot_be_one_of_us_is_refused(void **state)
{
    char answer[1024] = "";
    int status[MOST];

    (void)state;
    in_ranks(3, sum_of_ranks, 20, other_version, status);
    assert_int_equal(status[0], -E_CONFIG);
    assert_non_null(strstr(left[0].msg, "rank 1 on elsewhere is of version"));
    assert_true(recv(strangers[0], answer, sizeof answer, MSG_WAITALL) > 32);
    assert_non_null(strstr(answer + 32, "is of version")); /* and is told */
    close(strangers[0]);
    in_ranks(3, sum_of_ranks, 20, no_such_rank, status);
    assert_int_equal(status[0], -E_CONFIG);
    assert_non_null(strstr(left[0].msg, "rank 3"));
    close(strangers[0]);
}

/* One that has met the others and then says what no rank says: all end, none is confused. */
static void test_nonsense_between_ranks(void **state)
{
    struct ranks r = { .by = "test", .rank = 0, .size = 2, .host = "here" };
    struct rendezvous m;
    struct err e = { 0 };
    struct place p;
    pid_t pid;
    int s;

    (void)state;
    assert_int_equal(place_make(&p, &e), 0);
    if ((pid = fork()) == 0) {
        close(p.listener);
        p.listener = -1;
        r.rank = 1;
        if (rendezvous_meet(&m, &r, &p, 5, &e) < 0 || send(m.fds[0], "zzzzzzzzzz", 10, 0) != 10)
            _exit(WRONG);
        sleep(5);
        _exit(0);
    }
    assert_int_equal(rendezvous_meet(&m, &r, &p, 5, &e), 0);
    assert_int_equal(watch_open(&m, 20, &e), 0);
    for (int i = 0; i < 200 && watch_check(&e) == 0; i++)
        usleep(10000);
    assert_int_equal(watch_check(&e), E_DEVICE);
    assert_non_null(strstr(e.msg, "rank 1 on here says what no rank says"));
    assert_int_equal(watch_lost(1, "x", &e), E_DEVICE);
    watch_close(E_DEVICE, e.msg, false);
    rendezvous_close(&m);
    kill(pid, SIGKILL);
    waitpid(pid, &s, 0);
}

static void test_who_does_not_come_is_named(void **state)
{
    struct ranks r = { .by = "test", .rank = 0, .size = 3, .host = "here" };
    struct rendezvous m;
    struct err e = { 0 };
    struct place p;

    (void)state;
    assert_int_equal(place_make(&p, &e), 0);
    assert_true(p.n > 0);
    assert_int_equal(rendezvous_meet(&m, &r, &p, 0.2, &e), E_DEVICE);
    assert_non_null(strstr(e.msg, "rank 1 has not come within 0 s; 1 of 3 are here"));
    rendezvous_close(&m);
    /* and nobody is where rank 0 should be */
    r.rank = 1;
    p.at[0] = (struct address){ .ip = { [10] = 0xff, 0xff, 127, 0, 0, 1 }, .port = 9 };
    p.n = 1;
    assert_int_equal(rendezvous_meet(&m, &r, &p, 0.2, &e), E_DEVICE);
    assert_non_null(strstr(e.msg, "rank 0 was not found at 127.0.0.1 port 9"));
    rendezvous_close(&m);
}

/* ---- where rank 0 is */

/* Who tells that rank 0 has died: a bit for each rank from 0 on. */
static unsigned speakers(const char *places, bool apart)
{
    struct seat seats[8] = { 0 };
    struct rendezvous m = { .size = (int)strlen(places), .seats = seats, .apart = apart };
    unsigned all = 0;

    for (int r = 0; r < m.size; r++) {
        strcpy(seats[r].host, "node"); /* a digit: its address; capitals: of another name */
        seats[r].host[0] = places[r] < 'a' ? 'N' : 'n';
        seats[r].door.ip[15] = (unsigned char)(places[r] | 32);
        seats[r].door.port = (uint16_t)(1000 + r);
    }
    for (m.rank = 0; m.rank < m.size; m.rank++)
        all |= (unsigned)rendezvous_speaks(&m) << m.rank;
    return all;
}

static void test_one_tells_of_rank_0(void **state)
{
    (void)state;
    assert_int_equal(speakers("aaaaa", false), 3);   /* ranks 0 and 1 */
    assert_int_equal(speakers("aabbcc", false), 7);  /* rank 1 may have died with its host */
    assert_int_equal(speakers("abcabc", false), 3);
    assert_int_equal(speakers("aAaA", false), 3);    /* a host of another name */
    assert_int_equal(speakers("aaaaa", true), 3);
    assert_int_equal(speakers("aabbcc", true), 23);  /* each host has its own terminal */
    assert_int_equal(speakers("abab", true), 7);
}

static void test_first_host_of_a_list(void **state)
{
    static const struct { const char *list, *first; } lists[] = {
        { "a[1-3,7],b2", "a1" }, { "n[001-003]", "n001" }, { "host", "host" }, { "h1,h2", "h1" },
        { "tux[12-14]-ib,x", "tux12-ib" }, { "r[1-2]n[3-4]", "r1n3" }, { "a[", NULL },
        { "a[x]", NULL }, { "", NULL }, { ",a", NULL }, { "a[1-3", NULL },
    };
    char host[8 + 4];

    (void)state;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        bool ok = place_first_host(lists[i].list, host, sizeof host);

        if (ok != !!lists[i].first || (ok && strcmp(host, lists[i].first) != 0))
            fail_msg("'%s': %s", lists[i].list, ok ? host : "refused");
    }
    assert_false(place_first_host("a-name-too-long", host, sizeof host));
}

static void test_place_in_the_environment(void **state)
{
    const char *form = getenv("CMOCKA_MESSAGE_OUTPUT"); /* of the next tests' results */
    char *output = form ? strdup(form) : NULL;
    struct ranks r = { .by = "torchrun", .rank = 1, .size = 2 };
    struct err e = { 0 };
    struct place p, q;
    unsigned char b[PLACE_BYTES];

    (void)state;
    clearenv();
    assert_int_equal(place_find(&p, &r, &e), E_CONFIG);
    assert_non_null(strstr(e.msg, "MASTER_ADDR"));
    setenv("MASTER_ADDR", "127.0.0.1", 1);
    assert_int_equal(place_find(&p, &r, &e), 0); /* the port follows from the job */
    assert_in_range(p.at[0].port, 15000, 29999);
    setenv("MASTER_PORT", "70000", 1);
    assert_int_equal(place_find(&p, &r, &e), E_CONFIG);
    setenv("MASTER_PORT", "12345", 1);
    assert_int_equal(place_find(&p, &r, &e), 0);
    assert_int_equal(p.at[0].port, 12345);
    assert_true(net_is_loopback(&p.at[0]));
    setenv("TORCHELASTIC_USE_AGENT_STORE", "True", 1);
    assert_int_equal(place_find(&q, &r, &e), 0);
    assert_int_equal(q.at[0].port, 12346);
    assert_memory_equal(p.token, q.token, TOKEN_BYTES);
    setenv("LONGLORA_TOKEN", "secret", 1);
    assert_int_equal(place_find(&q, &r, &e), 0);
    assert_memory_not_equal(p.token, q.token, TOKEN_BYTES);
    place_write(&q, b);
    place_read(&p, b);
    assert_memory_equal(p.at, q.at, sizeof p.at[0]);
    assert_memory_equal(p.token, q.token, TOKEN_BYTES);
    memset(b, 0xff, sizeof b); /* more addresses than there is room for */
    place_read(&p, b);
    assert_int_equal(p.n, PLACE_MOST);
    clearenv();
    r.by = "Slurm";
    setenv("SLURM_STEP_NODELIST", "127.0.0.[1-2]", 1);
    setenv("SLURM_JOB_ID", "7", 1);
    assert_int_equal(place_find(&p, &r, &e), 0);
    assert_int_equal(p.at[0].ip[12], 127);
    setenv("SLURM_STEP_NODELIST", "no-such-host.invalid", 1);
    assert_int_equal(place_find(&p, &r, &e), E_CONFIG);
    clearenv();
    if (output)
        setenv("CMOCKA_MESSAGE_OUTPUT", output, 1);
    free(output);
}

/* How many to start, of the options. */
static void test_ranks_asked(void **state)
{
    struct err e = { 0 };

    (void)state;
    assert_int_equal(ranks_asked(&(struct ranks_options){ 0 }, &e), 0);
    assert_int_equal(ranks_asked(&(struct ranks_options){ .processes = 3 }, &e), 3);
    assert_int_equal(ranks_asked(&(struct ranks_options){ .gpus = "8" }, &e), 8);
    assert_int_equal(ranks_asked(&(struct ranks_options){ .gpus = "8x" }, &e), E_USAGE);
    assert_int_equal(ranks_asked(&(struct ranks_options){ .gpus = "0" }, &e), E_USAGE);
    assert_int_equal(ranks_asked(&(struct ranks_options){ .gpus = "2", .processes = 2 }, &e),
                     E_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strangers_do_no_harm),
        cmocka_unit_test(test_a_rank_that_cannot_be_one_of_us_is_refused),
        cmocka_unit_test(test_nonsense_between_ranks),
        cmocka_unit_test(test_who_does_not_come_is_named),
        cmocka_unit_test(test_ranks_asked),
        cmocka_unit_test(test_one_tells_of_rank_0),
        cmocka_unit_test(test_first_host_of_a_list),
        cmocka_unit_test(test_place_in_the_environment),
    };

    return cmocka_run_group_tests(tests, quiet, NULL);
}
