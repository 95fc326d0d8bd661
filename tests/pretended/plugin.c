/* A PJRT plugin that opens no client. MINOR is its API's version, SAYS why it refuses. */
#include <stddef.h>
#include <string.h>

typedef void *(*call)(void *);
struct message { size_t size; void *extension; const void *error; const char *text; size_t length; };
struct code { size_t size; void *extension; const void *error; int code; };

static char refusal;

static void *destroy(void *arguments) { (void)arguments; return NULL; }
static void *message(void *arguments) {
    struct message *wanted = arguments;
    wanted->text = SAYS;
    wanted->length = strlen(SAYS);
    return NULL;
}
static void *code(void *arguments) { ((struct code *)arguments)->code = 10; return NULL; }
static void *initialize(void *arguments) { (void)arguments; return NULL; }
static void *refuse(void *arguments) { (void)arguments; return &refusal; }

static const struct {
    size_t size;
    void *extension;
    struct { size_t size; void *extension; int major, minor; } version;
    call calls[118];
} api = {984, NULL, {24, NULL, 0, MINOR}, {[0] = destroy, [1] = message, [2] = code, [3] = initialize, [10] = refuse}};

const void *GetPjrtApi(void) { return &api; }
