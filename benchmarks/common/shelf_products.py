"""Which product each of the photos in ``drink/test_images`` shows."""

from __future__ import annotations

from types import MappingProxyType

# Read off the packs by eye, each compared with the gallery's photos of the product and of those with similar names.
# Every photo shows one product: 100 and 222 several packs of it, 001 a carton beside the can, mosilian a glass. Some
# packs are not the gallery's: 110 has another flavour, 005 and 99 another print, youjia another design, 112, 222 and
# nongfu_spring a smaller bottle. None of the photos shares a shot with the gallery (`common.shots`).
SHELF_PRODUCTS = MappingProxyType(
    {
        "001.jpeg": "红牛-强化型",
        "002.jpeg": "康师傅矿物质水",
        "003.jpeg": "乐虎功能饮料",
        "004.jpeg": "脉动",
        "005.jpeg": "味全_每日C",
        "100.jpeg": "元气森林",
        "110.jpeg": "脉动",
        "112.jpeg": "康师傅冰红茶",
        "222.jpeg": "康师傅冰红茶",
        "99.jpg": "味全_每日C",
        "mosilian.jpeg": "光明_莫斯利安",
        "nongfu_spring.jpeg": "农夫山泉-饮用天然水",
        "youjia.jpeg": "光明_优加纯牛奶",
    }
)
"""Label texts of the gallery by file name."""
