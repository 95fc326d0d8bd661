/* Another PJRT plugin, REAL, whose interface for calls of foreign functions is not there, like all extensions (ABSENT), refuses them
   (REFUSES), or calls nothing where it should call them, so that their results stay unwritten. */
#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct head { size_t size; void *extensions; };
struct extension { size_t size; int kind; struct extension *next; };
struct arguments {
    size_t size; const char *name; size_t name_size; void *handler; const char *platform; size_t platform_size; int traits;
};
typedef void *registration(struct arguments *);
struct calls { struct extension base; void *types, *user_data; registration *add; };
struct frame { size_t size; const struct extension *extension; };
typedef void *function(const struct frame *);

enum { CALLS = 5, METADATA = 1 };

static registration *real_add;
static function *own;

/* Says of itself what the function would, which is the same of all. */
static void *nothing(const struct frame *frame) {
    return frame->extension && frame->extension->kind == METADATA ? own(frame) : NULL;
}

static void *add(struct arguments *arguments) {
#ifdef REFUSES
    arguments->size = 1;
    (void)nothing;
#else
    own = (function *)arguments->handler;
    arguments->handler = (void *)nothing;
#endif
    return real_add(arguments);
}

const void *GetPjrtApi(void) {
    static struct head *copy;
    static struct calls calls;
    if (copy) return copy;
    void *plugin = dlopen(REAL, RTLD_NOW | RTLD_LOCAL);
    if (!plugin) return NULL;
    const struct head *(*get)(void) = (const struct head *(*)(void))dlsym(plugin, "GetPjrtApi");
    const struct head *api = get();
    copy = malloc(api->size);
    memcpy(copy, api, api->size);
#ifdef ABSENT
    (void)add;
    (void)calls;
    copy->extensions = NULL;
    return copy;
#endif
    struct extension *node = api->extensions;
    while (node && node->kind != CALLS) node = node->next;
    if (!node) return copy;
    memcpy(&calls, node, sizeof calls);
    real_add = calls.add;
    calls.add = add;
    calls.base.next = api->extensions; /* the first of a kind is taken */
    copy->extensions = &calls;
    return copy;
}
