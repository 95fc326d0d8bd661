/* Another PJRT plugin, REAL, without its extensions. */
#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct head { size_t size; void *extensions; };

const void *GetPjrtApi(void) {
    static struct head *copy;
    if (copy) return copy;
    void *plugin = dlopen(REAL, RTLD_NOW | RTLD_LOCAL);
    if (!plugin) return NULL;
    const struct head *(*get)(void) = (const struct head *(*)(void))dlsym(plugin, "GetPjrtApi");
    const struct head *api = get();
    copy = malloc(api->size);
    memcpy(copy, api, api->size);
    copy->extensions = NULL;
    return copy;
}
